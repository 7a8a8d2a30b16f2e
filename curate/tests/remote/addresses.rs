//! Lists of addresses: what comes, what does not, and what is fetched when.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use lockstep_curate::{CurateError, Progress};

use crate::server::{Server, answer, bare};
use crate::support::{built, told};

/// Nothing is dropped of what was read.
const ALL_STAY: &str = "[\"read\"]";
/// All is: the texts are too short.
const ALL_GO: &str = "[\"quality\"]";

fn long() -> Vec<u8> {
    vec![b'x'; 200_000]
}

#[test]
fn what_comes_is_read_and_what_does_not_has_a_reason() {
    let server = Server::start(|path, before| match path {
        "/a.jsonl" => answer(
            "200 OK",
            &["ETag: \"1\""],
            b"{\"text\":\"first\"}\n{\"text\":\"second\",\"url\":\"http://own.org/\"}\n",
        ),
        "/page" => answer(
            "200 OK",
            &["Content-Type: text/html; charset=utf-8"],
            b"<html><body><article><p>A page.</p></article></body></html>",
        ),
        "/x.txt?token=1" => answer("200 OK", &[], b"with a query"),
        "/moved.txt" => answer("302 Found", &["Location: /target"], b""),
        "/target" => answer("200 OK", &[], b"moved here"),
        "/flaky.txt" if before == 0 => answer("503 Service Unavailable", &[], b"later"),
        "/flaky.txt" => answer("200 OK", &[], b"at the second try"),
        "/cut-once.txt" if before == 0 => bare("200 OK", &["Content-Length: 99"], b"at first"),
        "/cut-once.txt" => answer("200 OK", &[], b"then whole"),
        "/cut.txt" => bare("200 OK", &["Content-Length: 99"], b"always"),
        "/cut-chunks.txt" => bare("200 OK", &["Transfer-Encoding: chunked"], b"5\r\nbegun\r\n"),
        "/loop" => answer("302 Found", &["Location: /loop"], b""),
        "/long.txt" => answer("200 OK", &[], &long()),
        "/endless.txt" => bare("200 OK", &[], &long()),
        "/packed.txt" => answer("200 OK", &["Content-Encoding: gzip"], b"\x1f\x8b"),
        "/image" => answer("200 OK", &["Content-Type: image/png"], b"\x89PNG"),
        _ => answer("404 Not Found", &[], b"none"),
    });
    let paths = [
        "/a.jsonl",
        "/page",
        "/x.txt?token=1",
        "/moved.txt",
        "/flaky.txt",
        "/cut-once.txt",
        "/cut.txt",
        "/cut-chunks.txt",
        "/loop",
        "/long.txt",
        "/endless.txt",
        "/packed.txt",
        "/image",
        "/missing.txt",
        "/missing.txt",
    ];
    let folder = tempfile::tempdir().unwrap();
    let urls = paths.map(|path| server.url(path));
    built(folder.path(), &urls, ALL_STAY, &Progress::default()).unwrap();
    let (documents, dropped) = told(folder.path());
    let expected = [
        ("first", server.url("/a.jsonl")),
        ("second", "http://own.org/".to_owned()),
        ("A page.", server.url("/page")),
        ("with a query", server.url("/x.txt?token=1")),
        ("moved here", server.url("/moved.txt")),
        ("at the second try", server.url("/flaky.txt")),
        ("then whole", server.url("/cut-once.txt")),
    ];
    assert_eq!(
        documents,
        expected.map(|(text, url)| (text.to_owned(), url)).into()
    );
    for (path, words) in [
        ("/cut.txt", "read.unreachable: "),
        ("/cut-chunks.txt", "read.unreachable: "),
        ("/loop", "read.redirect: "),
        ("/long.txt", "read.too_long: is longer than max_bytes = 100000"),
        ("/endless.txt", "read.too_long: is longer than max_bytes = 100000"),
        ("/packed.txt", "read.content_encoding: sent as gzip"),
        ("/image", "read.format: "),
        ("/missing.txt", "read.http_status: the service answers 404"),
    ] {
        let told = dropped.get(&server.url(path));
        assert!(
            told.is_some_and(|told| told.starts_with(words)),
            "{path}: {told:?}"
        );
    }
    assert_eq!(dropped.len(), 8, "{dropped:?}");
    for (path, times) in [
        ("/missing.txt", 1),
        ("/cut.txt", 4),
        ("/loop", 11),
        ("/long.txt", 1),
        ("/flaky.txt", 2),
    ] {
        assert_eq!(server.asked(path), times, "{path}");
    }
}

#[test]
fn opt_outs_of_headers_are_those_of_all_that_came_with_them() {
    let server = Server::start(|path, _| match path {
        "/robots.txt" => answer("200 OK", &["X-Robots-Tag: noai"], b"of one page"),
        "/tdm.jsonl" => answer(
            "200 OK",
            &["TDM-Reservation: 1"],
            b"{\"text\":\"first\"}\n{\"text\":\"second\"}\n",
        ),
        "/other.txt" => answer("200 OK", &["TDM-Reservation: 0"], b"said nothing"),
        _ => answer("404 Not Found", &[], b""),
    });
    let folder = tempfile::tempdir().unwrap();
    let urls = ["/robots.txt", "/tdm.jsonl", "/other.txt"].map(|path| server.url(path));
    built(folder.path(), &urls, "[\"licence\"]", &Progress::default()).unwrap();
    let (documents, dropped) = told(folder.path());
    assert_eq!(
        documents,
        [("said nothing".to_owned(), server.url("/other.txt"))].into()
    );
    assert_eq!(dropped.len(), 2, "{dropped:?}");
    for (path, statement) in [("/robots.txt", "noai"), ("/tdm.jsonl", "tdm-reservation")] {
        let told = &dropped[&server.url(path)];
        assert!(
            told.starts_with("consent.opt_out") && told.contains(statement),
            "{told}"
        );
    }
}

#[test]
fn what_was_fetched_is_not_fetched_again() {
    let server = Server::start(|path, before| match path {
        "/missing.txt" => answer("404 Not Found", &[], b""),
        _ if before > 0 => answer("200 OK", &[], b"something else"),
        _ => answer("200 OK", &[], b"as it was"),
    });
    let folder = tempfile::tempdir().unwrap();
    let urls = ["/a.txt", "/missing.txt"].map(|path| server.url(path));
    let build = |stages| built(folder.path(), &urls, stages, &Progress::default());
    // The rules drop all of it, which ends the build: what was fetched is kept for the next one.
    assert!(matches!(build(ALL_GO), Err(CurateError::NothingLeft { .. })));
    assert_eq!(server.asked_at_all(), 2);
    assert!(!build(ALL_STAY).unwrap().reused);
    assert_eq!(told(folder.path()).0.keys().collect::<Vec<_>>(), ["as it was"]);
    assert!(build(ALL_STAY).unwrap().reused);
    assert_eq!(server.asked_at_all(), 2);
}

#[test]
fn a_source_of_which_nothing_answers_ends_the_build_and_is_tried_again() {
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let server = Server::start(move |_, _| match up.load(Ordering::SeqCst) {
        true => answer("200 OK", &[], b"up again"),
        false => answer("503 Service Unavailable", &[], b""),
    });
    let folder = tempfile::tempdir().unwrap();
    let urls = ["/a.txt", "/b.txt"].map(|path| server.url(path));
    let build = || built(folder.path(), &urls, ALL_STAY, &Progress::default());
    let error = build().unwrap_err();
    assert!(matches!(error, CurateError::Unreachable { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("source \"web\": none of its addresses answers"),
        "{error}"
    );
    is_up.store(true, Ordering::SeqCst);
    build().unwrap();
    assert_eq!(told(folder.path()).0.len(), 1);
}

#[test]
fn a_build_stops_while_a_service_keeps_it_waiting() {
    let progress = Arc::new(Progress::default());
    let asked = Arc::clone(&progress);
    let (stopped, waits) = mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let server = Server::start(move |_, _| {
        asked.stop();
        let _ = waits.lock().unwrap().recv();
        Vec::new()
    });
    let folder = tempfile::tempdir().unwrap();
    let built = built(folder.path(), &[server.url("/a.txt")], ALL_STAY, &progress);
    drop(stopped);
    assert!(matches!(built, Err(CurateError::Interrupted)), "{built:?}");
}
