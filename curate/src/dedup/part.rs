//! The file of a task's signatures: buckets, ranks and sketches of its documents, in their order.
//!
//! Documents stand in blocks of 16,384. In a block, ranks come first, then the buckets of each band together, then the
//! sketches (only with `verify`), each with a checksum; then the checksums of ranks and bands. So a band's task reads
//! a fourteenth of the file, and what it reads is checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::dedup::table::{Draft, Footer, Kind, put_words, words_of};
use crate::dedup::{DedupError, NearSettings, Signature};

const KIND: Kind = *b"minhash1";
const BLOCK: u64 = 16_384;
/// Files of which sketches are read that are open at the same time.
const OPEN_FILES: usize = 128;

/// The widths of a block's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    bands: u64,
    /// Bytes of a sketch with its checksum, or 0.
    sketch: u64,
}

impl Layout {
    fn of(settings: &NearSettings) -> Self {
        Self {
            bands: settings.bands as u64,
            sketch: settings.verify.map_or(0, |_| settings.hashes() as u64 + 4),
        }
    }

    fn block_bytes(self, documents: u64) -> u64 {
        documents * (4 + 8 * self.bands + self.sketch) + 8 * (1 + self.bands)
    }

    fn body_bytes(self, documents: u64) -> u64 {
        let last = documents % BLOCK;
        documents / BLOCK * self.block_bytes(BLOCK) + if last == 0 { 0 } else { self.block_bytes(last) }
    }
}

/// Settings under which signatures can be compared, as one number.
fn family(settings: &NearSettings) -> u64 {
    let mut words = Vec::new();
    let sizes = [settings.ngram, settings.bands, settings.rows].map(|size| size as u64);
    put_words(&mut words, &sizes);
    put_words(&mut words, &[u64::from(settings.seed)]);
    xxh3_64(&words)
}

/// Writes a part. Nothing stands at its place before [`PartWriter::commit`].
pub struct PartWriter {
    draft: Draft,
    layout: Layout,
    rows: usize,
    family: u64,
    documents: u64,
    ranks: Vec<u8>,
    bands: Vec<Vec<u8>>,
    sketches: Vec<u8>,
}

impl PartWriter {
    /// Begins a part.
    ///
    /// # Errors
    /// If a setting is out of bounds, or the file cannot be made.
    pub fn create(path: &Path, settings: &NearSettings) -> Result<Self, DedupError> {
        settings.check().map_err(DedupError::Setting)?;
        Ok(Self {
            draft: Draft::create(path)?,
            layout: Layout::of(settings),
            rows: settings.rows,
            family: family(settings),
            documents: 0,
            ranks: Vec::new(),
            bands: vec![Vec::new(); settings.bands],
            sketches: Vec::new(),
        })
    }

    /// Adds the next document: its signature, if it has one, and its [rank](crate::dedup::Keep::rank). A document
    /// without a signature is like no other, but it counts.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn push(&mut self, signature: Option<&Signature>, rank: u32) -> Result<(), DedupError> {
        self.ranks.extend_from_slice(&rank.to_le_bytes());
        let mut keys = signature
            .into_iter()
            .flat_map(|signature| signature.bands(self.rows));
        for band in &mut self.bands {
            put_words(band, &[keys.next().unwrap_or(0)]);
        }
        if self.layout.sketch > 0 {
            let from = self.sketches.len();
            let to = from + self.layout.sketch as usize - 4;
            self.sketches
                .extend(signature.into_iter().flat_map(Signature::sketch));
            self.sketches.resize(to, 0);
            let checksum = xxh3_64(self.sketches.get(from..).unwrap_or_default()) as u32;
            self.sketches.extend_from_slice(&checksum.to_le_bytes());
        }
        self.documents += 1;
        if self.documents.is_multiple_of(BLOCK) {
            self.flush()?;
        }
        Ok(())
    }

    /// Ends the part and gives it its name: the number of its documents.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn commit(mut self) -> Result<u64, DedupError> {
        if !self.documents.is_multiple_of(BLOCK) {
            self.flush()?;
        }
        let parameters = [self.documents, self.family, self.layout.bands, self.layout.sketch];
        self.draft.commit(KIND, parameters)?;
        Ok(self.documents)
    }

    fn flush(&mut self) -> Result<(), DedupError> {
        let mut checksums = Vec::new();
        for column in std::iter::once(&mut self.ranks).chain(&mut self.bands) {
            put_words(&mut checksums, &[xxh3_64(column)]);
            self.draft.put(column)?;
            column.clear();
        }
        self.draft.put(&self.sketches)?;
        self.sketches.clear();
        self.draft.put(&checksums)
    }
}

/// Parts, one after the other: all documents.
#[derive(Clone, Debug)]
pub struct Parts {
    parts: Vec<Part>,
    layout: Layout,
    documents: u32,
}

#[derive(Clone, Debug)]
struct Part {
    path: PathBuf,
    /// The ordinal of its first document.
    first: u64,
    documents: u64,
}

impl Parts {
    /// Looks at parts, in the order that gives the ordinals.
    ///
    /// # Errors
    /// If one cannot be read, is damaged, or was made under settings whose signatures cannot be compared.
    pub fn open<P: AsRef<Path>>(
        paths: impl IntoIterator<Item = P>,
        settings: &NearSettings,
    ) -> Result<Self, DedupError> {
        let layout = Layout::of(settings);
        let family = family(settings);
        let mut documents = 0;
        let mut parts = Vec::new();
        for path in paths {
            let path = path.as_ref();
            let (_, footer) = Footer::open_as(path, KIND)?;
            let [count, made_by, bands, sketch] = footer.parameters;
            if made_by != family || (Layout { bands, sketch }) != layout {
                return Err(DedupError::OtherSettings {
                    path: path.to_owned(),
                });
            }
            if layout.body_bytes(count) != footer.body_bytes {
                return Err(DedupError::damaged(path, "its length does not match"));
            }
            parts.push(Part {
                path: path.to_owned(),
                first: documents,
                documents: count,
            });
            documents += count;
        }
        Ok(Self {
            parts,
            layout,
            documents: u32::try_from(documents).map_err(|_| DedupError::TooManyDocuments { documents })?,
        })
    }

    /// How many documents there are.
    #[must_use]
    pub fn documents(&self) -> u32 {
        self.documents
    }

    /// The rank of each document, in their order.
    pub fn ranks(&self) -> impl Iterator<Item = Result<u32, DedupError>> {
        let columns = self.columns(0);
        columns.flat_map(|column| {
            let (error, bytes) = match column {
                Ok(bytes) => (None, bytes),
                Err(error) => (Some(Err(error)), Vec::new()),
            };
            let ranks: Vec<u32> = bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|rank| u32::from_le_bytes(*rank))
                .collect();
            error.into_iter().chain(ranks.into_iter().map(Ok))
        })
    }

    /// Calls `each` with ordinal and bucket of each document that has a signature, in their order.
    pub(crate) fn for_each_bucket(
        &self,
        band: usize,
        mut each: impl FnMut(u32, u64) -> Result<(), DedupError>,
    ) -> Result<(), DedupError> {
        let mut ordinal = 0;
        for column in self.columns(1 + band as u64) {
            for bucket in column?.as_chunks::<8>().0 {
                match u64::from_le_bytes(*bucket) {
                    0 => {}
                    bucket => each(ordinal, bucket)?,
                }
                ordinal += 1;
            }
        }
        Ok(())
    }

    /// One column of every block: 0 is ranks, then come the bands.
    fn columns(&self, column: u64) -> impl Iterator<Item = Result<Vec<u8>, DedupError>> {
        self.parts.iter().flat_map(move |part| {
            let opened = Footer::open_as(&part.path, KIND).map(|(file, _)| file);
            let (file, error) = match opened {
                Ok(file) => (Some(file), None),
                Err(error) => (None, Some(Err(error))),
            };
            let blocks = (0..part.documents.div_ceil(BLOCK))
                .map_while(move |block| file.as_ref().map(|file| self.column(part, file, block, column)));
            error.into_iter().chain(blocks)
        })
    }

    fn column(&self, part: &Part, file: &File, block: u64, column: u64) -> Result<Vec<u8>, DedupError> {
        let failed = |error| DedupError::io("read", &part.path, error);
        let documents = BLOCK.min(part.documents - block * BLOCK);
        let begin = block * self.layout.block_bytes(BLOCK);
        let (width, offset) = match column {
            0 => (4, 0),
            band => (8, documents * (4 + 8 * (band - 1))),
        };
        let mut bytes = vec![0; (documents * width) as usize];
        file.read_exact_at(&mut bytes, begin + offset).map_err(failed)?;
        let checksums = documents * (4 + 8 * self.layout.bands + self.layout.sketch);
        let mut checksum = [0; 8];
        file.read_exact_at(&mut checksum, begin + checksums + 8 * column)
            .map_err(failed)?;
        match words_of(&checksum) == [xxh3_64(&bytes)] {
            true => Ok(bytes),
            false => Err(DedupError::damaged(&part.path, "a checksum does not match")),
        }
    }

    /// Reads sketches one by one.
    pub(crate) fn sketches(&self) -> Sketches<'_> {
        Sketches {
            parts: self,
            files: BTreeMap::new(),
        }
    }
}

/// Reads sketches one by one, in any order.
pub(crate) struct Sketches<'a> {
    parts: &'a Parts,
    files: BTreeMap<usize, File>,
}

impl Sketches<'_> {
    /// Reads the sketch of a document into `sketch`. Without `verify` it is empty.
    pub(crate) fn read(&mut self, ordinal: u32, sketch: &mut Vec<u8>) -> Result<(), DedupError> {
        let Parts { parts, layout, .. } = self.parts;
        sketch.clear();
        let ordinal = u64::from(ordinal);
        let place = parts
            .partition_point(|part| part.first <= ordinal)
            .wrapping_sub(1);
        let Some(part) = parts.get(place).filter(|_| layout.sketch > 0) else {
            return Ok(());
        };
        if !self.files.contains_key(&place) {
            if self.files.len() >= OPEN_FILES {
                self.files.clear();
            }
            self.files.insert(place, Footer::open_as(&part.path, KIND)?.0);
        }
        let Some(file) = self.files.get(&place) else {
            return Ok(());
        };
        let within = ordinal - part.first;
        let block = within / BLOCK;
        let documents = BLOCK.min(part.documents - block * BLOCK);
        let begin = block * layout.block_bytes(BLOCK) + documents * (4 + 8 * layout.bands);
        sketch.resize(layout.sketch as usize, 0);
        file.read_exact_at(sketch, begin + within % BLOCK * layout.sketch)
            .map_err(|error| DedupError::io("read", &part.path, error))?;
        let checksum = sketch.split_off(sketch.len().saturating_sub(4));
        match checksum == (xxh3_64(sketch) as u32).to_le_bytes() {
            true => Ok(()),
            false => Err(DedupError::damaged(
                &part.path,
                "a sketch's checksum does not match",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::Signer;

    fn text(i: u64) -> String {
        (0..i % 7).map(|word| format!("w{} ", word * i)).collect()
    }

    /// Documents spread over parts; the last block of a part is not full, or is, or there is none.
    fn parts(folder: &Path, settings: &NearSettings, sizes: &[u64]) -> Vec<PathBuf> {
        let mut signer = Signer::new(settings).unwrap();
        let mut i = 0;
        let part = |(number, &size): (usize, &u64)| {
            let path = folder.join(format!("part-{number}"));
            let mut writer = PartWriter::create(&path, settings).unwrap();
            for _ in 0..size {
                writer.push(signer.sign(&text(i)), i as u32 * 3).unwrap();
                i += 1;
            }
            assert_eq!(writer.commit().unwrap(), size);
            path
        };
        sizes.iter().enumerate().map(part).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        for verify in [None, Some(0.7)] {
            let settings = NearSettings {
                verify,
                ..NearSettings::default()
            };
            let paths = parts(folder.path(), &settings, &[0, BLOCK, 3, 2 * BLOCK + 1]);
            let parts = Parts::open(&paths, &settings).unwrap();
            assert_eq!(u64::from(parts.documents()), 3 * BLOCK + 4);
            let ranks: Vec<u32> = parts.ranks().map(Result::unwrap).collect();
            assert!(ranks.iter().copied().eq((0..3 * BLOCK as u32 + 4).map(|i| i * 3)));
            let mut signer = Signer::new(&settings).unwrap();
            let mut seen = 0;
            parts
                .for_each_bucket(13, |ordinal, bucket| {
                    let signature = signer.sign(&text(u64::from(ordinal))).unwrap();
                    assert_eq!(signature.bands(8).nth(13), Some(bucket));
                    seen += 1;
                    Ok(())
                })
                .unwrap();
            assert_eq!(seen, (0..3 * BLOCK + 4).filter(|i| i % 7 > 0).count());
            let mut sketches = parts.sketches();
            let mut sketch = Vec::new();
            for ordinal in [
                1,
                BLOCK as u32 - 1,
                BLOCK as u32,
                BLOCK as u32 + 3,
                3 * BLOCK as u32 + 3,
            ] {
                sketches.read(ordinal, &mut sketch).unwrap();
                let signature = signer.sign(&text(u64::from(ordinal)));
                let expected = signature
                    .filter(|_| verify.is_some())
                    .into_iter()
                    .flat_map(Signature::sketch);
                assert!(verify.is_none() || sketch.len() == 112);
                assert!(expected.zip(&sketch).all(|(a, b)| a == *b));
            }
        }
    }

    #[test]
    fn damage_and_other_settings_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let settings = NearSettings {
            verify: Some(0.5),
            ..NearSettings::default()
        };
        let paths = parts(folder.path(), &settings, &[10]);
        for other in [
            NearSettings {
                seed: 2,
                ..settings.clone()
            },
            NearSettings {
                bands: 7,
                rows: 16,
                ..settings.clone()
            },
            NearSettings {
                verify: None,
                ..settings.clone()
            },
        ] {
            let error = Parts::open(&paths, &other).unwrap_err();
            assert!(matches!(error, DedupError::OtherSettings { .. }), "{error}");
        }
        let whole = std::fs::read(&paths[0]).unwrap();
        // Each byte but the footer's belongs to the ranks, a band, a sketch or a checksum.
        for place in (0..whole.len() - 64).step_by(13) {
            let mut changed = whole.clone();
            changed[place] ^= 1;
            std::fs::write(&paths[0], changed).unwrap();
            let parts = Parts::open(&paths, &settings).unwrap();
            let mut sketches = parts.sketches();
            let damaged = parts.ranks().any(|rank| rank.is_err())
                || (0..14).any(|band| parts.for_each_bucket(band, |_, _| Ok(())).is_err())
                || (0..10).any(|i| sketches.read(i, &mut Vec::new()).is_err());
            assert!(damaged, "byte {place}");
        }
        std::fs::write(&paths[0], &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(
            Parts::open(&paths, &settings),
            Err(DedupError::Damaged { .. })
        ));
    }
}
