//! One suite over a folder and, with the feature `s3`, over a server that speaks S3.

use super::*;
use crate::checkpoint::{About, write};
use crate::{Layout, State, decoder};
use lockstep_engine::spec::presets;

const KEEP_ALL: Policy = Policy {
    keep: 0,
    keep_every: 0,
    keep_best: 0,
};

/// A run's folder, and what it takes to write checkpoints into it.
struct Run {
    dir: tempfile::TempDir,
    layout: Layout,
    state: State,
}

impl Run {
    fn new() -> Self {
        let nano = presets().into_iter().find(|p| p.name == "nano").unwrap();
        let layout = decoder::layout(&nano.model).unwrap();
        let weights = (0..layout.len()).map(|i| (i as f32).sin()).collect();
        Self {
            dir: tempfile::tempdir().unwrap(),
            layout,
            state: State::initial(weights),
        }
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes the checkpoint of `step`; its weights depend on `seed`.
    fn write(&self, step: u64, seed: f32) -> PathBuf {
        let mut state = State {
            step: Step(step),
            ..self.state.clone()
        };
        std::sync::Arc::make_mut(&mut state.weights)[0] = seed;
        write(self.dir(), &state, &self.layout, &About::default(), 2).unwrap()
    }
}

fn steps(steps: &[u64]) -> Vec<Step> {
    steps.iter().copied().map(Step).collect()
}

fn same_files(a: &Path, b: &Path) -> bool {
    let read = |folder: &Path| -> BTreeMap<_, _> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        entries
            .map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap()))
            .collect()
    };
    read(a) == read(b)
}

impl Mirror {
    /// Changes one byte of a file at the target.
    fn damage(&self, step: u64, file: &str) {
        let key = self.key(Step(step), file);
        self.runtime.block_on(async {
            let size = self.store.head(&key).await.unwrap().size;
            let mut bytes = self.store.get_range(&key, 0..size).await.unwrap().to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            self.store.put(&key, PutPayload::from(bytes)).await.unwrap();
        });
    }

    fn delete(&self, step: u64, file: &str) {
        let key = self.key(Step(step), file);
        self.runtime.block_on(self.store.delete(&key)).unwrap();
    }
}

/// What must hold over every kind of target; `mirror` is empty.
fn suite(mirror: &mut Mirror) {
    let run = Run::new();
    for step in [10, 20, 30] {
        run.write(step, 1.0);
    }
    let done = mirror.update(run.dir(), &KEEP_ALL).unwrap();
    assert_eq!(done.copied, steps(&[30, 20, 10]));
    assert!(done.deleted.is_empty() && done.failed.is_empty(), "{done:?}");
    let done = mirror.update(run.dir(), &KEEP_ALL).unwrap();
    assert!(done.copied.is_empty(), "{done:?}");

    // A machine that has nothing gets the newest, byte for byte; one that has it gets nothing.
    let other = tempfile::tempdir().unwrap();
    let fetched = mirror.fetch(other.path()).unwrap();
    let found = fetched.found.unwrap();
    assert_eq!((found.manifest.step, fetched.skipped.len()), (Step(30), 0));
    assert!(same_files(&found.path, &folder(run.dir(), Step(30))));
    assert!(mirror.fetch(other.path()).unwrap().found.is_none());
    assert!(mirror.fetch(run.dir()).unwrap().found.is_none());

    // One that is damaged there, or is no checkpoint, is passed over and named.
    mirror.damage(30, "shard-2-of-2.safetensors");
    mirror.delete(20, MANIFEST);
    let third = tempfile::tempdir().unwrap();
    let fetched = mirror.fetch(third.path()).unwrap();
    assert_eq!(fetched.found.unwrap().manifest.step, Step(10));
    let words: Vec<String> = fetched.skipped.iter().map(|s| s.reason.to_string()).collect();
    assert!(
        words[0].contains("step-00000030: shard-2-of-2.safetensors has digest"),
        "{words:?}"
    );
    assert!(
        words[1].contains("step-00000020: manifest.json is missing"),
        "{words:?}"
    );
    assert_eq!(fs::read_dir(third.path()).unwrap().count(), 1);

    // What lost its manifest is copied again; another history replaces what is there; what is not kept goes.
    run.write(10, 2.0);
    let done = mirror.update(run.dir(), &KEEP_ALL).unwrap();
    assert_eq!(done.copied, steps(&[20, 10]));
    let fourth = tempfile::tempdir().unwrap();
    run.write(40, 2.0);
    let policy = Policy {
        keep: 1,
        keep_every: 20,
        ..KEEP_ALL
    };
    let done = mirror.update(run.dir(), &policy).unwrap();
    assert_eq!((done.copied, done.deleted), (steps(&[40]), steps(&[10, 30])));
    let fetched = mirror.fetch(fourth.path()).unwrap().found.unwrap();
    assert!(same_files(&fetched.path, &folder(run.dir(), Step(40))));

    // A checkpoint that is damaged here is not copied, and tried only so often.
    let path = run.write(50, 2.0).join("shard-1-of-2.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    for retried in [true, true, false] {
        let done = mirror.update(run.dir(), &KEEP_ALL).unwrap();
        let [failed] = &done.failed[..] else {
            panic!("{done:?}")
        };
        assert_eq!((failed.step, failed.retried), (Step(50), retried));
        assert!(failed.reason.to_string().contains("has digest"), "{done:?}");
    }
    assert!(mirror.update(run.dir(), &KEEP_ALL).unwrap().failed.is_empty());
    // The rest of the tries is cleared once there is a newer one.
    run.write(60, 2.0);
    mirror.update(run.dir(), &KEEP_ALL).unwrap();
    let held: Vec<Step> = mirror.steps().unwrap().into_iter().collect();
    assert!(held.contains(&Step(60)) && !held.contains(&Step(50)), "{held:?}");
}

#[test]
fn a_folder_holds_copies() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("some where").join("copies");
    suite(&mut Mirror::open(&Target::Folder(place.clone())).unwrap());
    // No empty folders are left of what was deleted.
    let names: Vec<Step> = crate::checkpoint::list(&place)
        .unwrap()
        .into_iter()
        .map(|(step, _)| step)
        .collect();
    assert!(!names.contains(&Step(50)), "{names:?}");
    for (_, path) in crate::checkpoint::list(&place).unwrap() {
        verify(&path).unwrap();
    }
}

#[test]
fn a_target_that_cannot_be_opened_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = fetch(&Target::Folder(file.join("x")), dir.path()).unwrap_err();
    let words = error.to_string();
    assert!(matches!(error, TrainerError::Target { .. }), "{words}");
    assert!(
        words.contains("checkpoint.target file://") && words.contains("/file/x"),
        "{words}"
    );
}

#[cfg(not(feature = "s3"))]
#[test]
fn a_build_without_s3_says_so() {
    let target = "s3://bucket/runs".parse().unwrap();
    let Err(error) = Mirror::open(&target) else {
        panic!("opened")
    };
    assert!(
        error.to_string().contains("build with `--features s3`"),
        "{error}"
    );
}

#[cfg(feature = "s3")]
mod s3 {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::net::TcpStream;
    use std::process::{Child, Command, Stdio};

    /// `moto_server` of the Python package `moto[server]`, on a free port of the loopback; ended when it is dropped.
    struct Server {
        process: Child,
        address: String,
    }

    impl Server {
        fn start() -> Self {
            let mut process = Command::new("moto_server")
                .args(["-H", "127.0.0.1", "-p", "0"])
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("moto_server, which `pip install 'moto[server]'` brings");
            let lines = BufReader::new(process.stderr.take().unwrap()).lines();
            let mut addresses = lines.map_while(Result::ok).filter_map(|line| {
                let (_, address) = line.split_once("http://")?;
                Some(address.trim().to_owned())
            });
            let address = addresses.next().expect("the address that moto_server listens on");
            // It writes a line for each request.
            std::thread::spawn(move || addresses.for_each(drop));
            Self { process, address }
        }

        fn make_bucket(&self, name: &str) {
            let mut stream = TcpStream::connect(&self.address).unwrap();
            let address = &self.address;
            write!(
                stream,
                "PUT /{name} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )
            .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }

        fn mirror(&self, target: &Target) -> Mirror {
            let Target::S3 { bucket, prefix } = target else {
                panic!("{target}")
            };
            let endpoint = format!("http://{}", self.address);
            let options = [
                ("endpoint", endpoint.as_str()),
                ("allow_http", "true"),
                ("access_key_id", "key"),
                ("secret_access_key", "secret"),
                ("region", "us-east-1"),
            ];
            let store = open_bucket(target, bucket, &options).unwrap();
            Mirror::over(target, store, Key::from(prefix.as_str())).unwrap()
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    #[test]
    fn a_bucket_holds_copies() {
        let server = Server::start();
        server.make_bucket("bucket");
        for target in ["s3://bucket/runs/first run", "s3://bucket"] {
            suite(&mut server.mirror(&target.parse().unwrap()));
        }
    }

    #[test]
    fn a_bucket_that_is_not_there_is_named() {
        let server = Server::start();
        let target = "s3://nowhere/runs".parse().unwrap();
        let run = Run::new();
        run.write(1, 1.0);
        let error = server.mirror(&target).update(run.dir(), &KEEP_ALL).unwrap_err();
        let words = error.to_string();
        assert!(words.contains("checkpoint.target s3://nowhere/runs: "), "{words}");
        assert!(matches!(error, TrainerError::Target { .. }), "{words}");
    }
}
