//! What people get wrong: each time a sentence that names it, the exit code for its kind, and nothing left behind.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_proto::wire;
use lockstep_proto::wire::nodes_client::NodesClient;
use lockstep_proto::wire::{DaemonHello, DaemonUp, RankHello, RankUp, WorkerId, daemon_up, rank_up};
use rustix::process::Signal;
use support::cluster::Coordinator;
use support::disk::Disk;
use support::job::{Job, text, write_corpus};
use support::place::Place;
use support::process::{Process, Ran};
use tonic::{Request, Response, Status, Streaming};

/// Runs a command that must fail with this code and these words, and leave nothing in `out`.
#[track_caller]
fn refused(place: &Place, line: &str, code: i32, words: &[&str]) -> Ran {
    let ran = place.run(line).code(code).says(words);
    assert!(ran.out.is_empty(), "an error belongs on standard error: {ran:#?}");
    assert_eq!(place.files("out"), Vec::<PathBuf>::new(), "{ran:#?}");
    place.await_nobody();
    ran
}

fn job_on(corpus: &str) -> Job {
    Job {
        data: Some(format!("corpus = {corpus:?}")),
        ..Job::default()
    }
}

#[test]
fn a_corpus_without_text() {
    let place = Place::with(&job_on("corpus"));
    refused(
        &place,
        "run small.toml --out out",
        3,
        &["corpus", "no such folder"],
    );
    fs::create_dir(place.path("corpus")).unwrap();
    refused(
        &place,
        "run small.toml --out out",
        3,
        &["holds no text", "give a folder with UTF-8 text files"],
    );
    refused(
        &place,
        "data build --corpus corpus --out out",
        3,
        &["holds no text"],
    );
    fs::write(place.path("corpus/one.bin"), b"\0\0\0").unwrap();
    refused(&place, "run small.toml --out out", 3, &["left out: 1 binary"]);
}

#[test]
fn a_corpus_that_may_not_be_read() {
    let place = Place::with(&job_on("corpus"));
    write_corpus(&place.path("corpus"), 3, 100);
    // A copy of the program: its folder may be closed to others.
    let program = place.path("lockstep");
    fs::copy(env!("CARGO_BIN_EXE_lockstep"), &program).unwrap();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(place.root(), 0o777);
    mode(&program, 0o755);
    mode(&place.path("corpus"), 0o000);
    let mut command = place.command_of(&program, "run small.toml --out out");
    // Permissions do not bind root: be somebody whom they bind.
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65_534).gid(65_534);
    }
    let ran = Process::start(&mut command).finish();
    mode(&place.path("corpus"), 0o755);
    ran.code(7).says(&["permission denied", "corpus"]);
    assert_eq!(place.files("out"), Vec::<PathBuf>::new());
    place.await_nobody();
}

#[test]
fn a_corpus_smaller_than_one_batch() {
    let place = Place::with(&job_on("corpus"));
    fs::create_dir(place.path("corpus")).unwrap();
    // Enough for the vocabulary, which needs a few hundred bytes, and no more.
    fs::write(place.path("corpus/a.txt"), text(1, 900)).unwrap();
    let ran = place.run("run small.toml --out out").code(3);
    let ran = ran.says(&[
        "corpus smaller than one batch",
        "one batch needs 513",
        "add text, or lower batch.",
    ]);
    assert!(
        !place.path("out/checkpoints").exists() && !place.path("out/coordinator").exists(),
        "{ran:#?}"
    );
    place.await_nobody();
}

#[test]
fn a_spec_with_problems() {
    let place = Place::with(&Job::default());
    let spec = place.read("small.toml");
    let write = |text: &str| fs::write(place.path("bad.toml"), text).unwrap();
    for (from, to, words) in [
        (
            "steps = 30",
            "stepz = 30",
            vec!["unknown field of [train] `stepz`", "did you mean `steps`?"],
        ),
        (
            "[optim]",
            "[optin]",
            vec!["unknown section `optin`", "did you mean `optim`?"],
        ),
        (
            "steps = 30",
            "steps = 0",
            vec!["train.steps = 0: must be a whole number from 1 to"],
        ),
        (
            "max_workers = 4",
            "max_workers = 9",
            vec!["elastic.max_workers = 9: must be at most 8"],
        ),
        ("[model]", "[model", vec!["bad.toml has problems", "line 5: "]),
    ] {
        assert!(spec.contains(from), "{from}");
        write(&spec.replace(from, to));
        for line in ["run bad.toml --out out", "validate bad.toml"] {
            refused(&place, line, 2, &words);
        }
    }
    // All of its problems at once.
    write(
        &spec
            .replace("steps = 30", "steps = 0")
            .replace("seed = 7", "sed = 7"),
    );
    refused(
        &place,
        "validate bad.toml",
        2,
        &["train.steps = 0", "did you mean `seed`?"],
    );
    write(
        &spec
            .lines()
            .filter(|line| !line.starts_with("dataset"))
            .collect::<Vec<_>>()
            .join("\n"),
    );
    refused(
        &place,
        "run bad.toml --out out",
        2,
        &["[data] names neither `corpus` nor `dataset`"],
    );
    write(&spec.replace("vocab_size = 300", "vocab_size = 301"));
    refused(
        &place,
        "run bad.toml --out out",
        2,
        &["model.vocab_size = 301", "has 300 tokens; set it to that"],
    );
    refused(
        &place,
        "run nowhere.toml --out out",
        7,
        &["read the spec nowhere.toml", "No such file"],
    );
}

/// Nothing of it is allocated: it would take terabytes.
#[test]
fn a_model_that_does_not_fit_the_memory() {
    let place = Place::with(&Job::default());
    let spec = place.read("small.toml");
    let wide = "[model]\nhidden_size = 8192\nintermediate_size = 65536\nnum_hidden_layers = 200";
    let without = |line: &&str| {
        !["hidden_size", "intermediate_size", "num_hidden_layers"]
            .iter()
            .any(|f| line.starts_with(f))
    };
    let spec = spec.lines().filter(without).collect::<Vec<_>>().join("\n");
    fs::write(place.path("big.toml"), spec.replace("[model]", wide)).unwrap();
    let ran = place.run("run big.toml --out out --workers 1");
    ran.code(1).says(&[
        "a rank of this job takes about",
        "MiB left",
        "batch.sequences",
        "memory.recompute",
    ]);
    place.await_nobody();
}

#[test]
fn options_that_make_no_sense() {
    let place = Place::with(&Job::default());
    for (options, words) in [
        ("--workers 0", vec!["--workers", "0", "1..=1024"]),
        (
            "--workers 9",
            vec![
                "--workers 9",
                "elastic.min_workers = 1",
                "elastic.max_workers = 4",
            ],
        ),
        ("--kill 1", vec!["`1` is not WORKER@STEP", "1@7"]),
        ("--kill 1@0", vec!["--kill 1@0: the step must be from 1 to 30"]),
        ("--kill 1@31", vec!["--kill 1@31: the step must be from 1 to 30"]),
        ("--kill 1@x", vec!["`1@x` is not WORKER@STEP"]),
        (
            "--local --coordinator http://127.0.0.1:1",
            vec!["cannot be used with"],
        ),
    ] {
        refused(&place, &format!("run small.toml --out out {options}"), 2, &words);
    }
    refused(
        &place,
        "bench step --ranks 3",
        2,
        &["--ranks 3: must be a power of two"],
    );
    refused(
        &place,
        "bench step --ranks 2 --against autograd",
        2,
        &["--against autograd", "leave --ranks out"],
    );
    refused(
        &place,
        "bench memory --preset nope",
        2,
        &["'nope' for '--preset <PRESET>'", "tiny, small"],
    );
    refused(&place, "run", 2, &["<SPEC>"]);
    refused(&place, "trian", 2, &["unrecognized subcommand 'trian'"]);
}

#[test]
fn a_port_that_is_taken() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let line = format!("coordinator --listen {address} --state out");
    refused(
        &place,
        &line,
        4,
        &[&format!("listen on {address}"), "hoose another --listen"],
    );
}

#[test]
fn a_store_that_is_in_use() {
    let place = Place::new();
    let coordinator = Coordinator::start(&place);
    let ran = place.run("coordinator --listen 127.0.0.1:0 --state state");
    ran.code(7).says(&["coordinator.redb"]);
    drop(coordinator);
    place.await_nobody();
}

#[test]
fn a_coordinator_that_is_not_there() {
    let place = Place::with(&Job::default());
    // An address of its own: a port that was just free may be another test's in a moment.
    let free = TcpListener::bind("127.0.0.83:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let words = [
        &*format!("no coordinator at {url}"),
        "refused",
        "start one with `lockstep coordinator`",
    ];
    // Jobs' verbs say so at once, a node daemon after its first patience.
    let worker = place.start(&format!("worker --coordinator {url} --name alpha"));
    for verb in [
        "submit small.toml --out out",
        "list",
        "status small",
        "cancel small",
        "run small.toml --out out",
    ] {
        refused_but_for_worker(&place, &format!("{verb} --coordinator {url}"), &words);
    }
    worker.finish_within(Duration::from_secs(40)).code(4).says(&words);
    place.await_nobody();
    refused(
        &place,
        "list --coordinator nonsense:::",
        2,
        &["coordinator `nonsense:::`", "give it as http://HOST:PORT"],
    );
}

fn refused_but_for_worker(place: &Place, line: &str, words: &[&str]) {
    place.run(line).code(4).says(words);
    assert_eq!(place.files("out"), Vec::<PathBuf>::new(), "{line}");
}

/// Spoken to directly, as a machine that was not upgraded would.
#[test]
fn a_worker_of_another_version() {
    let place = Place::new();
    let coordinator = Coordinator::start(&place);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (daemon, rank) = runtime.block_on(async {
        let mut client = NodesClient::connect(coordinator.url.clone()).await.unwrap();
        let version = "0.0.7-old".to_owned();
        let hello = DaemonHello {
            version: version.clone(),
            node: "old".to_owned(),
            slots: 1,
            ..DaemonHello::default()
        };
        let hello = DaemonUp {
            what: Some(daemon_up::What::Hello(hello)),
        };
        let daemon = client.daemon(tokio_stream::once(hello)).await.unwrap_err();
        let worker = WorkerId {
            node: "old".to_owned(),
            slot: 0,
            incarnation: vec![7; 16],
        };
        let hello = RankHello {
            version,
            job: "any".to_owned(),
            worker: Some(worker),
        };
        let hello = RankUp {
            what: Some(rank_up::What::Hello(hello)),
        };
        let rank = client.rank(tokio_stream::once(hello)).await.unwrap_err();
        (daemon, rank)
    });
    for status in [daemon, rank] {
        assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status:?}");
        for word in [
            "0.0.7-old",
            lockstep_proto::VERSION,
            "install the same `lockstep`",
        ] {
            assert!(status.message().contains(word), "{word}: {status:?}");
        }
    }
    // The right version is welcome still.
    coordinator.worker(&place, "new", 1);
}

/// Its results would be others: it must not train with the rest.
#[test]
fn a_worker_that_computes_other_bits() {
    let place = Place::new();
    let coordinator = Coordinator::start(&place);
    let _worker = coordinator.worker(&place, "right", 1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let status = runtime.block_on(async {
        let mut client = NodesClient::connect(coordinator.url.clone()).await.unwrap();
        let hello = DaemonHello {
            version: lockstep_proto::VERSION.to_owned(),
            node: "odd".to_owned(),
            slots: 1,
            incarnation: vec![7; 16],
            numerics: "0123456789abcdef".to_owned(),
            ..DaemonHello::default()
        };
        let hello = DaemonUp {
            what: Some(daemon_up::What::Hello(hello)),
        };
        client.daemon(tokio_stream::once(hello)).await.unwrap_err()
    });
    for word in ["`odd`", "`right`", "0123456789abcdef", "the same build"] {
        assert!(status.message().contains(word), "{word}: {status:?}");
    }
}

/// A coordinator of another version: it turns every machine away.
struct Newer;

type Never<T> = tokio_stream::Empty<Result<T, Status>>;

#[tonic::async_trait]
impl wire::nodes_server::Nodes for Newer {
    type DaemonStream = Never<wire::DaemonDown>;
    type RankStream = Never<wire::RankDown>;
    async fn daemon(
        &self,
        _: Request<Streaming<wire::DaemonUp>>,
    ) -> Result<Response<Self::DaemonStream>, Status> {
        Err(Status::failed_precondition(
            "version 0.1.0 cannot work with 9.9.9",
        ))
    }
    async fn rank(&self, _: Request<Streaming<wire::RankUp>>) -> Result<Response<Self::RankStream>, Status> {
        Err(Status::failed_precondition(
            "version 0.1.0 cannot work with 9.9.9",
        ))
    }
}

#[test]
fn a_coordinator_of_another_version() {
    let place = Place::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder()
        .add_service(wire::nodes_server::NodesServer::new(Newer))
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
    runtime.spawn(server);
    let words = ["version 0.1.0 cannot work with 9.9.9"];
    place
        .run(&format!("worker --coordinator {url} --name alpha"))
        .code(5)
        .says(&words);
    let rank = "--job any --node alpha --slot 0 --incarnation 7";
    let mut command = place.command(&format!("rank --coordinator {url} {rank}"));
    // A rank leaves when its standard input ends.
    let (input, _parent) = std::io::pipe().unwrap();
    Process::start_reading(&mut command, input.into())
        .finish()
        .code(5)
        .says(&words);
}

#[test]
fn two_machines_of_one_name() {
    let place = Place::new();
    let coordinator = Coordinator::start(&place);
    let _first = coordinator.worker(&place, "alpha", 1);
    let line = format!("worker --coordinator {} --name alpha", coordinator.url);
    place
        .run(&line)
        .code(4)
        .says(&["a node named `alpha` is connected already", "--name"]);
    place
        .run(&format!("worker --coordinator {} --name a/b", coordinator.url))
        .code(2)
        .says(&["--name"]);
}

/// Flips one bit in the middle of a file.
fn corrupt(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_checkpoint_and_a_folder_that_is_no_model() {
    let place = Place::with(&Job::default());
    for out in ["run", "whole"] {
        place
            .run(&format!("run small.toml --local --workers 1 --out {out}"))
            .code(0);
    }
    place.run("checkpoint verify run").code(0);
    corrupt(&place.path("run/checkpoints/step-00000030/shard-1-of-1.safetensors"));
    let words = ["step-00000030", "shard-1-of-1.safetensors has digest", "expected"];
    refused(&place, "checkpoint verify run", 6, &words);
    refused(
        &place,
        "checkpoint verify run/checkpoints/step-00000030",
        6,
        &words,
    );
    refused(
        &place,
        "checkpoint export run/checkpoints/step-00000030 --out out",
        6,
        &words,
    );
    let listed = place.run("checkpoint ls run -o json").code(0).json();
    let problems: Vec<bool> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["problem"].is_string())
        .collect();
    // Only that of the last step is sure to be there: others are given up on a disk that is too slow for them.
    assert_eq!(problems.iter().filter(|is| **is).count(), 1, "{listed:#}");

    refused(&place, "generate --model run", 6, &["run is not a model"]);
    refused(&place, "generate --model nowhere", 6, &["nowhere is not a model"]);
    refused(
        &place,
        "checkpoint ls nowhere",
        2,
        &["nowhere holds no checkpoints"],
    );
    // The other run's is whole, and so is the model made of it.
    place.run("checkpoint export whole --out model").code(0);
    let written = place
        .run("generate --model model --max-tokens 5 -o json")
        .code(0)
        .json();
    assert_eq!(written["tokens"], 5, "{written:#}");
}

#[test]
fn a_damaged_dataset() {
    let place = Place::new();
    write_corpus(&place.path("corpus"), 100, 300);
    place
        .run("data build --corpus corpus --out data --vocab-size 300")
        .code(0);
    place.write(&Job {
        data: Some("dataset = \"data\"".to_owned()),
        ..Job::default()
    });
    let shard = place
        .files("data")
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "bin"))
        .unwrap();
    let name = shard.file_name().unwrap().to_str().unwrap().to_owned();
    corrupt(&shard);
    let words = [&*name, "corrupted: expected digest", "build the dataset again"];
    refused(&place, "run small.toml --out out", 6, &words);
    refused(&place, "data verify data", 6, &words);
    fs::remove_file(&shard).unwrap();
    refused(&place, "run small.toml --out out", 6, &[&name, "missing"]);
    refused(&place, "data verify nowhere", 6, &["not a dataset"]);
}

#[test]
fn a_disk_that_is_full() {
    // Room for the store and the first checkpoints, of about 0.3 MB each, and never for all of them, even if most are
    // given up because steps are faster than the disk.
    let place = Place::with(&Job {
        steps: 600,
        every: 1,
        keep: 0,
        ..Job::default()
    });
    write_corpus(&place.path("corpus"), 10, 100_000);
    let Some(disk) = Disk::new(6 << 20) else { return };
    let (out, data) = (disk.path().join("run"), disk.path().join("data"));
    // It waits for room, says so, and can be told not to.
    let run = place.start(&format!(
        "run small.toml --local --workers 2 --out {}",
        out.display()
    ));
    run.await_err(|line| line.contains("space") && line.contains("tried again"));
    run.signal(Signal::INT);
    run.finish().code(130).says(&["stopped", "--resume"]);
    place.await_nobody();
    // What was written before is whole: none is half of a checkpoint.
    place.run(&format!("checkpoint verify {}", out.display())).code(0);
    place
        .run(&format!(
            "data build --corpus corpus --out {} --vocab-size 300",
            data.display()
        ))
        .code(7)
        .says(&["no space left", "nothing was left behind"]);
    assert!(!data.exists());
}
