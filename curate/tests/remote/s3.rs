//! The same over a server that speaks S3.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use lockstep_curate::read::{Objects, Source, SourceSettings};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ClientOptions, ObjectStoreExt as _, PutPayload};
use tokio::runtime::Runtime;

use crate::objects::{assert_same, files, settings, write_files};
use crate::support::All;

/// `moto_server` of the Python package `moto[server]`, on a free port of the loopback, with an empty bucket; ended when it is
/// dropped.
struct Server {
    process: Child,
    store: Arc<AmazonS3>,
    runtime: Runtime,
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
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(
            stream,
            "PUT /bucket HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let store = AmazonS3Builder::new()
            .with_bucket_name("bucket")
            .with_endpoint(format!("http://{address}"))
            .with_region("us-east-1")
            .with_access_key_id("key")
            .with_secret_access_key("secret")
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .build()
            .unwrap();
        Self {
            process,
            store: Arc::new(store),
            runtime: Runtime::new().unwrap(),
        }
    }

    fn put(&self, key: &str, bytes: Vec<u8>) {
        let key = object_store::path::Path::parse(key).unwrap();
        self.runtime
            .block_on(self.store.put(&key, PutPayload::from(bytes)))
            .unwrap();
    }

    fn open(&self, settings: &SourceSettings) -> Source {
        let objects = Objects::over("s3://bucket", Arc::<AmazonS3>::clone(&self.store)).unwrap();
        Source::open_in(Arc::new(objects), settings).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_bucket_is_read_as_a_folder_is() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path());
    for (name, bytes) in files() {
        server.put(name, bytes);
    }
    let local = folder.path().to_str().unwrap();
    for path in [
        "",
        "/raw",
        "/raw/a/b/note 1.txt",
        "/**/*.jsonl*",
        "/*/*.txt",
        "/raw/*.none",
    ] {
        assert_same(
            |settings| server.open(settings),
            &format!("s3://bucket{path}"),
            &format!("{local}{path}"),
        );
    }
    // Another version of an object is another input, and is not mixed with what was listed.
    let source = server.open(&settings("s3://bucket/other"));
    let before = source.list().unwrap();
    server.put("other/c.txt", b"not below raw.".to_vec());
    assert_eq!(All::of_listing(&source, &before).reasons(), ["read.changed"]);
    assert_ne!(source.list().unwrap().units, before.units);
    assert_eq!(All::of(&source).texts(), ["not below raw."]);
}
