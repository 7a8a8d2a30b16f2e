//! The safetensors format: eight bytes of header length, a JSON header, raw little-endian values.
//!
//! Written straight from the buffers and digested on the way, and read straight to them, so that nothing is held twice.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::json;

use crate::layout::Parameter;
use crate::state::{from_little_endian, little_endian};

/// A tensor to write.
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    pub(crate) shape: &'a [usize],
    pub(crate) values: &'a [f32],
}

impl Parameter {
    /// This parameter of the flat buffer `values`.
    pub(crate) fn entry<'a>(&'a self, values: &'a [f32]) -> Entry<'a> {
        Entry {
            name: &self.name,
            shape: &self.shape,
            values: &values[self.range.clone()],
        }
    }
}

/// What was written.
pub(crate) struct Written {
    pub(crate) bytes: u64,
    /// BLAKE3 in hexadecimal of the whole file.
    pub(crate) digest: String,
}

/// Elements written at once.
pub(crate) const BLOCK: usize = 1 << 18;
/// Bytes of a header, at most.
const HEADER_BYTES: u64 = 1 << 20;

/// A file that is being written.
pub(crate) struct Writer<W> {
    out: W,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file of tensors of these names and shapes, whose values come in their order.
    pub(crate) fn new(
        out: W,
        metadata: &BTreeMap<&str, String>,
        tensors: &[(&str, &[usize])],
    ) -> io::Result<Self> {
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".to_owned(), json!(metadata));
        let mut at = 0;
        for &(name, shape) in tensors {
            let end = at + size_of::<f32>() * shape.iter().product::<usize>();
            let value = json!({"dtype": "F32", "shape": shape, "data_offsets": [at, end]});
            header.insert(name.to_owned(), value);
            at = end;
        }
        let mut header = serde_json::to_vec(&header)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut file = Self {
            out,
            hasher: blake3::Hasher::new(),
            bytes: 0,
        };
        file.put_bytes(&(header.len() as u64).to_le_bytes())?;
        file.put_bytes(&header)?;
        Ok(file)
    }

    /// Adds values.
    pub(crate) fn put(&mut self, values: &[f32]) -> io::Result<()> {
        values
            .chunks(BLOCK)
            .try_for_each(|block| self.put_bytes(&little_endian(block)))
    }

    fn put_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// All is written.
    pub(crate) fn finish(self) -> Written {
        Written {
            bytes: self.bytes,
            digest: self.hasher.finalize().to_hex().to_string(),
        }
    }
}

/// Writes `entries` in their order.
pub(crate) fn write(
    out: &mut impl Write,
    metadata: &BTreeMap<&str, String>,
    entries: &[Entry<'_>],
) -> io::Result<Written> {
    let tensors: Vec<_> = entries.iter().map(|entry| (entry.name, entry.shape)).collect();
    let mut file = Writer::new(out, metadata, &tensors)?;
    for entry in entries {
        file.put(entry.values)?;
    }
    Ok(file.finish())
}

/// A file that is read tensor by tensor, in the order of their values.
pub(crate) struct Reader<R> {
    source: R,
    metadata: Metadata,
    /// Bytes of values that were read.
    at: usize,
}

impl<R: Read> Reader<R> {
    /// Reads the header of a file of `bytes` bytes.
    pub(crate) fn new(mut source: R, bytes: u64) -> io::Result<Self> {
        let mut len = [0; 8];
        source.read_exact(&mut len)?;
        let len = u64::from_le_bytes(len);
        let invalid = |problem| Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        if len > HEADER_BYTES {
            return invalid(format!(
                "a header of {len} bytes, where {HEADER_BYTES} are the most"
            ));
        }
        let mut header = Vec::new();
        source.by_ref().take(len).read_to_end(&mut header)?;
        let metadata: Metadata = serde_json::from_slice(&header)?;
        let values = metadata.tensors().values().map(|of| of.data_offsets.1).max();
        let values = values.unwrap_or_default() as u64;
        if bytes.checked_sub(8 + len) != Some(values) {
            return invalid(format!(
                "{bytes} bytes, where its header of {len} says {values} of values"
            ));
        }
        Ok(Self {
            source,
            metadata,
            at: 0,
        })
    }

    /// Appends the values of the tensor `name`, which must be the next one and of this shape.
    pub(crate) fn append(
        &mut self,
        name: &str,
        shape: &[usize],
        values: &mut Vec<f32>,
    ) -> Result<(), String> {
        let found = self
            .metadata
            .info(name)
            .ok_or_else(|| format!("no tensor `{name}`"))?;
        if found.dtype != Dtype::F32 || found.shape != shape {
            let (dtype, found) = (found.dtype, &found.shape);
            return Err(format!("`{name}` is {dtype:?} {found:?}, expected F32 {shape:?}"));
        }
        let (begin, end) = found.data_offsets;
        if begin != self.at {
            return Err(format!(
                "`{name}` begins at byte {begin} of the values, expected {}",
                self.at
            ));
        }
        let mut block = vec![0; (end - begin).min(4 * BLOCK)];
        while self.at < end {
            let some = block.len().min(end - self.at);
            let block = &mut block[..some];
            self.source.read_exact(block).map_err(|error| error.to_string())?;
            values.extend(from_little_endian(block));
            self.at += some;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    #[test]
    fn the_reference_reader_reads_it_back() {
        let (a, b) = ([1.0f32, -2.0, 3.5, 0.0, 5.0, 6.0], [7.0f32]);
        let entries = [
            Entry {
                name: "z",
                shape: &[2, 3],
                values: &a,
            },
            Entry {
                name: "a",
                shape: &[1],
                values: &b,
            },
            Entry {
                name: "empty",
                shape: &[0],
                values: &[],
            },
        ];
        let mut file = Vec::new();
        let metadata = BTreeMap::from([("format", "pt".to_owned())]);
        let written = write(&mut file, &metadata, &entries).unwrap();
        assert_eq!(
            (written.bytes, written.digest),
            (file.len() as u64, blake3::hash(&file).to_hex().to_string())
        );
        let read = SafeTensors::deserialize(&file).unwrap();
        let z = read.tensor("z").unwrap();
        assert_eq!((z.shape(), z.data()), (&[2, 3][..], bytemuck::cast_slice(&a)));
        assert_eq!(
            read.tensor("a").unwrap().data(),
            bytemuck::cast_slice::<f32, u8>(&b)
        );
        let (_, header) = SafeTensors::read_metadata(&file).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
    }

    #[test]
    fn tensors_are_read_in_their_order_and_what_does_not_fit_is_told() {
        let (a, b) = ([1.0f32, -2.0, 3.5], [7.0f32]);
        let shapes: [(&str, &[usize]); 2] = [("a", &[3]), ("b", &[1])];
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, &BTreeMap::new(), &shapes).unwrap();
        writer.put(&a).unwrap();
        writer.put(&b).unwrap();
        let bytes = writer.finish().bytes;
        let open = |file: &[u8], bytes| Reader::new(std::io::Cursor::new(file.to_vec()), bytes);
        let mut values = Vec::new();
        let mut reader = open(&file, bytes).unwrap();
        let early = reader.append("b", &[1], &mut values).unwrap_err();
        assert!(early.contains("`b` begins at byte 12"), "{early}");
        let missing = reader.append("c", &[1], &mut values).unwrap_err();
        assert!(missing.contains("no tensor `c`"), "{missing}");
        let shape = reader.append("a", &[4], &mut values).unwrap_err();
        assert!(shape.contains("expected F32 [4]"), "{shape}");
        reader.append("a", &[3], &mut values).unwrap();
        reader.append("b", &[1], &mut values).unwrap();
        assert_eq!(values, [1.0, -2.0, 3.5, 7.0]);

        let problem = |file: &[u8], bytes| open(file, bytes).err().unwrap().to_string();
        assert!(problem(&file, bytes + 1).contains("where its header"));
        assert!(problem(&file, 3).contains("where its header"));
        let mut long = file.clone();
        long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(problem(&long, bytes).contains("are the most"));
    }
}
