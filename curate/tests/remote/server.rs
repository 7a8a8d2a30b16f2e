//! An HTTP server on the loopback that answers with the bytes that a test wants.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// Runs until it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// `answer` is given the path with its query and how often that was asked for before, and gives all that is sent before
    /// the connection is closed.
    pub(crate) fn start(answer: impl Fn(&str, usize) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let ends = Arc::new(AtomicBool::new(false));
        let (paths, ended) = (Arc::clone(&asked), Arc::clone(&ends));
        let thread = thread::spawn(move || {
            thread::scope(|scope| {
                for stream in listener.incoming().map_while(Result::ok) {
                    if ended.load(Ordering::SeqCst) {
                        break;
                    }
                    scope.spawn(|| serve(stream, &paths, &answer));
                }
            });
        });
        Self {
            address,
            asked,
            ends,
            thread: Some(thread),
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How often a path was asked for.
    pub(crate) fn asked(&self, path: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| *asked == path).count()
    }

    pub(crate) fn asked_at_all(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn serve(mut stream: TcpStream, asked: &Mutex<Vec<String>>, answer: impl Fn(&str, usize) -> Vec<u8>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap())
        .lines()
        .map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    while lines.next().is_some_and(|line| !line.is_empty()) {}
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let before = {
        let mut asked = asked.lock().unwrap();
        let before = asked.iter().filter(|asked| **asked == path).count();
        asked.push(path.clone());
        before
    };
    // Whoever asked may have heard enough.
    let _ = stream.write_all(&answer(&path, before));
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An answer with this status line, these header lines and this body, of whose length nothing is said.
pub(crate) fn bare(status: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// The same with the length.
pub(crate) fn answer(status: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let length = format!("Content-Length: {}", body.len());
    bare(status, &[headers, &[&length]].concat(), body)
}
