//! Segments and views of one process; that other processes find them is seen by the collective's drills.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use lockstep_shm::{Alarm, Segment, Ticket, View, WORDS, host, sleep};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn what_is_written_and_published_is_read() {
    let mut segment = Segment::create(1000).unwrap();
    let view = View::open(&segment.ticket()).unwrap();
    segment.write(990, b"0123456789");
    segment.publish(WORDS - 1, 7);
    assert_eq!((view.load(0), view.load(WORDS - 1)), (0, 7));
    let mut bytes = [0; 10];
    view.read(990, &mut bytes);
    assert_eq!(&bytes, b"0123456789");
    // It outlives its maker.
    drop(segment);
    view.read(990, &mut bytes);
    assert_eq!(&bytes, b"0123456789");
}

#[test]
fn any_place_and_length_is_copied_exactly() {
    let (len, fill) = (700, 0xEE);
    let mut segment = Segment::create(len).unwrap();
    let view = View::open(&segment.ticket()).unwrap();
    let bytes: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
    for at in (0..70).chain([len - 3, len]) {
        for count in (0..140).chain([500, 600, 630]) {
            if at + count > len {
                continue;
            }
            segment.write(0, &vec![fill; len]);
            segment.write(at, &bytes[..count]);
            let mut all = vec![0; len];
            view.read(0, &mut all);
            assert_eq!(all[at..at + count], bytes[..count]);
            let around = all[..at].iter().chain(&all[at + count..]);
            assert!(around.copied().all(|byte| byte == fill), "{count} bytes at {at}");
        }
    }
}

#[test]
fn a_ticket_opens_its_segment_and_nothing_else() {
    let segment = Segment::create(4096).unwrap();
    let ticket = segment.ticket();
    for wrong in [
        Ticket { len: 4097, ..ticket },
        Ticket {
            len: u64::MAX,
            ..ticket
        },
        Ticket {
            inode: ticket.inode + 1,
            ..ticket
        },
        Ticket {
            process: u32::MAX,
            ..ticket
        },
    ] {
        View::open(&wrong).unwrap_err();
    }
    let file = File::open("/proc/self/exe").unwrap();
    let descriptor = file.as_raw_fd().unsigned_abs();
    View::open(&Ticket { descriptor, ..ticket }).unwrap_err();
    drop(segment);
    View::open(&ticket).unwrap_err();
}

#[test]
fn nobody_else_can_write_it() {
    let segment = Segment::create(4096).unwrap();
    let Ticket {
        process, descriptor, ..
    } = segment.ticket();
    let path = format!("/proc/{process}/fd/{descriptor}");
    let file = File::options().read(true).write(true).open(path).unwrap();
    assert_eq!(file.set_len(0).unwrap_err().kind(), ErrorKind::PermissionDenied);
    use std::os::unix::fs::FileExt as _;
    let written = file.write_at(b"x", 0);
    assert_eq!(written.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[test]
fn more_than_there_are_addresses_is_an_error() {
    // Less than that would be given, page by page, until the system has no more.
    for len in [usize::MAX, isize::MAX as usize] {
        Segment::create(len).unwrap_err();
    }
}

#[test]
fn a_word_or_an_alarm_ends_a_sleep() {
    let (mine, theirs) = (Segment::create(0).unwrap(), Segment::create(0).unwrap());
    let (my_view, view) = (
        View::open(&mine.ticket()).unwrap(),
        View::open(&theirs.ticket()).unwrap(),
    );
    let alarm = Alarm::default();
    let rung = alarm.count();
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            while view.load(0) == 0 {
                sleep((&view, 0, 0), (&alarm, rung), (&mine, 1), LONG).unwrap();
            }
            while alarm.count() == rung {
                sleep((&view, 0, 1), (&alarm, rung), (&mine, 1), LONG).unwrap();
            }
        });
        while my_view.load(1) == 0 {
            thread::yield_now();
        }
        theirs.publish(0, 1);
        theirs.wake(0);
        alarm.ring();
        sleeper.join().unwrap();
    });
    sleep(
        (&view, 0, 1),
        (&alarm, alarm.count()),
        (&mine, 1),
        Duration::from_millis(1),
    )
    .unwrap();
}

#[test]
fn a_host_is_itself() {
    assert_eq!(host().unwrap(), host().unwrap());
}
