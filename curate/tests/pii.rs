//! Private data is found, replaced, and shown to nobody.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::{Duration, Instant};

use lockstep_curate::pii::{Counts, Detector, Found, Kind, Policy, Settings, redact, verdict};
use proptest::prelude::*;

fn detector() -> Detector {
    Detector::new(&Settings::default()).unwrap()
}

fn find(text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    detector().find(text, &mut found);
    found
}

/// Texts with private data, and what they become. Sources of the numbers stand in the unit tests.
const SAMPLES: &[(&str, &str)] = &[
    ("Write to jane.doe@example.org today", "Write to <EMAIL> today"),
    (
        "from 93.184.216.34 and 2606:4700:4700::1111.",
        "from <IP> and <IP>.",
    ),
    (
        "pay 4242 4242 4242 4242 or 378282246310005",
        "pay <CARD> or <CARD>",
    ),
    (
        "IBAN DE89 3704 0044 0532 0130 00, GB82WEST12345698765432",
        "IBAN <IBAN>, <IBAN>",
    ),
    (
        "call +44 20 7946 0958 or (212) 555-0123",
        "call <PHONE> or <PHONE>",
    ),
    ("phone: 13800138000", "phone: <PHONE>"),
    (
        "SSN 536-90-4399 and ssn 457555462",
        "SSN <US_SSN> and ssn <US_SSN>",
    ),
    ("NHS 943 476 5919", "NHS <UK_NHS>"),
    ("NI number HH012345D", "NI number <UK_NINO>"),
    ("Steuer-ID: 86095742719", "Steuer-ID: <DE_STEUER_ID>"),
    ("sécu 2 95 10 99 126 111 93", "sécu <FR_NIR>"),
    ("DNI 54362315-K, NIE X2482300W", "DNI <ES_DNI>, NIE <ES_DNI>"),
    ("CF RCCMNL83S18D969H", "CF <IT_CODICE_FISCALE>"),
    ("BSN 111222333", "BSN <NL_BSN>"),
    ("nr 85.07.30-033.28", "nr <BE_NATIONAL_NUMBER>"),
    ("PESEL 44051401359", "PESEL <PL_PESEL>"),
    ("640823-3234", "<SE_PERSONNUMMER>"),
    ("131052-308T", "<FI_HETU>"),
    ("CPF 390.533.447-05", "CPF <BR_CPF>"),
    ("Aadhaar 2341 2341 2346", "Aadhaar <IN_AADHAAR>"),
    (
        "11010519491231002X 440524188001010014",
        "<CN_RESIDENT_ID> <CN_RESIDENT_ID>",
    ),
    ("SIN 046 454 286", "SIN <CA_SIN>"),
    ("TFN 123 456 782", "TFN <AU_TFN>"),
    (
        "AKIAIOSFODNN7EXAMPLE wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "<AWS_ACCESS_KEY_ID> <AWS_SECRET_KEY>",
    ),
    ("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", "<GITHUB_TOKEN>"),
    ("password = \"tr0ub4dor&3x\"", "password = \"<SECRET>\""),
    (
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
        "<JWT>",
    ),
    (
        "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIIrYSSNQFaA2Hwf1duRSxKtLYX5CB04fSeQ6tF1aY\n-----END EC PRIVATE KEY-----\nend",
        "<PRIVATE_KEY>\nend",
    ),
];

#[test]
fn private_data_becomes_placeholders() {
    let detector = detector();
    for (text, expected) in SAMPLES {
        let cleaned = detector.clean(text);
        assert_eq!(&*cleaned.text, *expected);
        assert_eq!(cleaned.verdict, None);
        assert_eq!(cleaned.counts.total() as usize, expected.matches('<').count());
    }
}

#[test]
fn ordinary_text_is_left_alone() {
    let text = "In 1998, 12,345 people (3.5%) met at 10:30:45 on 2023-11-12. See section 3.2.1.4 of ISBN 978-0-306-40615-7; \
        commit da39a3ee5e6b4b0d3255bfef95601890afd80709, id 550e8400-e29b-41d4-a716-446655440000, π = 3.14159265358979. \
        Use std::vec::Vec; @Override; icon@2x.png; v1.2.3.4; let token = next_token(); https://x.com/a/1234567890123456789 \
        no more than 1700000000000 ms; 2001:db8::1, 10.0.0.1, 127.0.0.1, 20231112T103045Z, 1234567890, 2^64 = 18446744073709551616";
    let found: Vec<&str> = find(text).into_iter().map(|found| &text[found.range]).collect();
    assert_eq!(found, [""; 0]);
}

#[test]
fn presidios_case_of_cards() {
    let cards = |text: &str| -> Vec<(usize, usize)> {
        let cards = find(text).into_iter().filter(|found| found.kind == Kind::Card);
        cards.map(|found| (found.range.start, found.range.end)).collect()
    };
    let text = "4012888888881881 4012-8888-8888-1881 4012 8888 8888 1881";
    assert_eq!(cards(text), [(0, 16), (17, 36), (37, 56)]);
    assert_eq!(cards("4012-8888-8888-1882"), []);
}

#[test]
fn policies_decide() {
    let policies = [
        (Kind::Email, Policy::Tag),
        (Kind::Ip, Policy::Off),
        (Kind::UsSsn, Policy::Drop),
    ];
    let settings = Settings {
        policies: policies.into(),
        ..Settings::default()
    };
    let detector = Detector::new(&settings).unwrap();
    let cleaned = detector.clean("a@example.com 93.184.216.34 +44 20 7946 0958");
    assert_eq!(cleaned.text, "a@example.com 93.184.216.34 <PHONE>");
    assert_eq!(
        cleaned.counts,
        Counts([(Kind::Email, 1), (Kind::Phone, 1)].into())
    );
    let text = "536-90-4399, 457-55-5462";
    let mut found = Vec::new();
    detector.find(text, &mut found);
    assert_eq!(
        verdict(&found, &settings),
        Some(("pii.us_ssn", "2 of us_ssn".to_owned()))
    );
    assert_eq!(detector.clean(text).verdict, verdict(&found, &settings));
    assert_eq!(redact(text, &found, &settings), text);
}

#[test]
fn private_addresses_are_a_setting() {
    let settings = Settings {
        private_addresses: true,
        ..Settings::default()
    };
    let cleaned = Detector::new(&settings).unwrap();
    assert_eq!(cleaned.clean("10.11.12.113 fe80::1").text, "<IP> <IP>");
    assert_eq!(
        detector().clean("10.11.12.113 fe80::1").text,
        "10.11.12.113 fe80::1"
    );
}

#[test]
fn settings_out_of_bounds_are_refused() {
    let settings = Settings {
        secret_entropy: 9.0,
        ..Settings::default()
    };
    let error = Detector::new(&settings).err().unwrap();
    assert_eq!(error.to_string(), "pii.secret_entropy = 9: must be from 0 to 8");
}

#[test]
fn no_value_is_shown() {
    let settings = Settings {
        policy: Policy::Drop,
        ..Settings::default()
    };
    let dropping = Detector::new(&settings).unwrap();
    let detector = detector();
    for (text, _) in SAMPLES {
        let found = find(text);
        assert!(!found.is_empty());
        let cleaned = detector.clean(text);
        let shown = format!(
            "{found:?} {:?} {:?} {:?} {}",
            cleaned.counts,
            verdict(&found, &settings),
            dropping.clean(text).verdict,
            serde_json::to_string(&(&found, &cleaned.counts)).unwrap(),
        );
        for found in found {
            let value = &text[found.range];
            assert!(!shown.contains(value), "{:?} is shown", found.kind);
            for part in value
                .split(|c: char| !c.is_alphanumeric())
                .filter(|part| part.len() > 3)
            {
                assert!(!shown.contains(part), "a part of {:?} is shown", found.kind);
            }
        }
    }
}

/// Time grows with the text, not with its square: 20 seconds for 10 MB is a hundred times what any of these needs, and far
/// less than a quadratic search takes.
#[test]
fn hostile_text_takes_linear_time() {
    let detector = detector();
    let key = "-----BEGIN PRIVATE KEY-----";
    for piece in [
        "1",
        "@",
        "eyJ",
        "a.a.a.",
        "eyJ.",
        "a@",
        "1 ",
        "1.",
        "1-",
        ":",
        "1:",
        "=",
        "token=",
        "token=a1",
        "AKIA",
        key,
        "ghp_a",
        "DE89 ",
        "+1 ",
        "4012 8888 ",
        "(212) 555-0123 ",
        "a@b.co ",
        "2001:db8::",
        "é@",
        "ssn 1234567890 ",
        "\n",
    ] {
        let text = piece.repeat(10_000_000 / piece.len());
        let mut found = Vec::new();
        let started = Instant::now();
        detector.find(&text, &mut found);
        let elapsed = started.elapsed();
        assert!(elapsed < Duration::from_secs(20), "{piece:?}: {elapsed:?}");
    }
}

/// Text made of what is found and what it is confused with, joined in ways that nobody writes.
fn text() -> impl Strategy<Value = String> {
    let sample = (0..SAMPLES.len()).prop_map(|i| SAMPLES[i].0.to_owned());
    let glue = "[ .,:;@=<>()+/'\"_0-9a-fA-Zé漢\n-]{0,3}";
    let odd = prop::sample::select(vec![
        "ssn",
        "phone",
        "card",
        "password=",
        "token: ",
        "+1 ",
        "<EMAIL>",
        "<IP>",
        "::",
        "(0)",
    ]);
    prop::collection::vec(
        prop_oneof![
            sample.boxed(),
            glue.boxed(),
            odd.prop_map(str::to_owned).boxed(),
            "[0-9]{1,11}".boxed()
        ],
        0..12,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn findings_are_sorted_apart_and_on_borders(text in text()) {
        let found = find(&text);
        prop_assert!(found.windows(2).all(|pair| pair[0].range.end <= pair[1].range.start));
        for found in &found {
            prop_assert!(text.get(found.range.clone()).is_some_and(|value| !value.is_empty()));
        }
        prop_assert_eq!(found, find(&text));
    }

    #[test]
    fn cleaning_what_was_cleaned_changes_nothing(text in text()) {
        let detector = detector();
        let once = detector.clean(&text);
        prop_assert_eq!(once.verdict, None);
        let twice = detector.clean(&once.text);
        prop_assert_eq!(&twice.text, &once.text);
        prop_assert_eq!(twice.counts.total(), 0);
    }

    #[test]
    fn only_what_was_found_is_replaced(text in text()) {
        let found = find(&text);
        let redacted = redact(&text, &found, &Settings::default());
        let mut rest = &*redacted;
        let mut from = 0;
        for found in &found {
            rest = rest.strip_prefix(&text[from..found.range.start]).unwrap();
            rest = rest.strip_prefix(found.kind.placeholder()).unwrap();
            from = found.range.end;
        }
        prop_assert_eq!(rest, &text[from..]);
    }
}
