use super::*;
use crate::recorder::Recorder;
use crate::run::{Heard, Run};
use crate::store::tests::{Flaky, record};
use lockstep_engine::ids::WorkerId;
use lockstep_engine::time::Instant;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use wire::rank_down::What;

fn worker(slot: u32) -> WorkerId {
    WorkerId {
        node: "n".parse().unwrap(),
        slot,
        incarnation: 1,
    }
}

fn joined(worker: &WorkerId) -> Heard {
    let event = Event::Joined {
        worker: worker.clone(),
        address: ([127, 0, 0, 1], 7).into(),
        checkpoints: Vec::new(),
        offer: None,
    };
    Heard::Training {
        event,
        evaluation: None,
    }
}

/// What a rank was told since it was asked last.
fn told(down: &mut mpsc::Receiver<Result<wire::RankDown, Status>>) -> Vec<What> {
    std::iter::from_fn(|| down.try_recv().ok()?.ok()?.what).collect()
}

#[tokio::test]
async fn an_epoch_is_announced_once_it_is_stored_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let spec = Spec::parse("[job]\nname = \"a\"\n[elastic]\nmin_workers = 1\nmax_workers = 2\n").unwrap();
    let out = folder.path().to_owned();
    let training = Training::new(
        JobRecord {
            out,
            ..record("a", 1)
        },
        spec,
        Vec::new(),
        (Epoch(6), Past::default()),
    );
    let mut run = Run::Training(Box::new(training));
    let over = CancellationToken::new();
    let recorder = Recorder::start(Arc::new(Flaky::new()), over, |_| ()).unwrap();
    let at = |seconds| Tools {
        recorder: &recorder,
        now: Instant(Duration::from_secs(seconds)),
    };
    let (first, second) = (worker(0), worker(1));
    let (down, mut to_first) = mpsc::channel(64);
    run.connect(&at(0), first.clone(), 1, down);
    assert!(matches!(told(&mut to_first)[..], [What::Welcome(_)]));
    run.expect(&at(0), 1);
    let effects = run.hear(&at(0), joined(&first));
    assert_eq!(effects, [Effect::Persist(Epoch(7))]);
    assert!(told(&mut to_first).is_empty(), "not stored yet");
    run.store_away(&at(0), Some("it is full"));
    assert_eq!(run.describe().reason, "waits for its store: it is full");
    run.store_away(&at(0), None);

    // Meanwhile another one joins and leaves: the machine goes on, its words wait.
    let (down, mut to_second) = mpsc::channel(64);
    run.connect(&at(0), second.clone(), 2, down);
    assert_eq!(run.hear(&at(1), joined(&second)), []);
    assert_eq!(run.hear(&at(1), Heard::Heartbeat(first.clone())), []);
    assert!(told(&mut to_first).is_empty());
    assert_eq!(run.persisted(&at(1), Epoch(6)), [], "of an older one");
    assert!(told(&mut to_first).is_empty());

    run.persisted(&at(1), Epoch(7));
    let words = told(&mut to_first);
    assert!(
        words
            .iter()
            .any(|what| matches!(what, What::Membership(membership) if membership.epoch == 7)),
        "{words:?}"
    );
    assert!(matches!(told(&mut to_second)[..], [What::Welcome(_)]));

    // A job that ends forgets what waited.
    assert_eq!(
        run.disconnect(&at(2), first, "gone".into()),
        [Effect::Persist(Epoch(8))]
    );
    run.fail(&at(2), "the disk is full".into());
    assert_eq!(run.persisted(&at(2), Epoch(8)), []);
    let words = told(&mut to_second);
    assert!(matches!(words[..], [What::Ended(_)]), "{words:?}");
}
