use super::*;

const SMALLEST: &str = r#"
[job]
name = "first"
[data]
corpus = "some/folder"
[model]
preset = "tiny"
[train]
steps = 30
seed = 7
[batch]
microbatches = 8
sequences = 2
[elastic]
min_workers = 1
max_workers = 4
"#;

fn problems(source: &str) -> Vec<String> {
    Spec::parse(source).expect_err(source).problems
}

#[test]
fn the_smallest_spec_reads_and_every_default_survives_a_round_trip() {
    let spec = Spec::parse(SMALLEST).unwrap();
    assert_eq!(
        (spec.train.steps, spec.batch.lanes, spec.model.hidden_size),
        (30, 4, 128)
    );
    assert_eq!(spec.batch.sequence_length, spec.model.max_position_embeddings);
    assert_eq!(Spec::parse(&spec.to_toml().unwrap()).unwrap(), spec);
}

#[test]
fn a_problem_names_line_field_value_and_bound() {
    let source = SMALLEST.replace("steps = 30", "steps = 0");
    assert_eq!(
        problems(&source),
        ["line 9: train.steps = 0: must be a whole number from 1 to 1000000000"]
    );
    let source = SMALLEST.replace("seed = 7", "seed = -7");
    assert!(problems(&source)[0].starts_with("line 10: train.seed = -7: must be"));
    let source = format!("{SMALLEST}[optim]\nbeta2 = 1.0\nclip = \"no\"\n");
    let found = problems(&source);
    assert_eq!(
        found[0],
        "line 18: optim.beta2 = 1.0: must be a number from 0 to 0.999999"
    );
    assert_eq!(
        found[1],
        "line 19: optim.clip = \"no\": must be a number from 0 to 1000000"
    );
    for streams in [0, 17] {
        let source = format!("{SMALLEST}[collective]\nstreams = {streams}\n");
        let expected =
            format!("line 18: collective.streams = {streams}: must be a whole number from 1 to 16");
        assert_eq!(problems(&source), [expected]);
    }
}

#[test]
fn an_unknown_name_gets_the_nearest_known_one() {
    let source = SMALLEST.replace("steps = 30", "stepz = 30");
    assert_eq!(
        problems(&source),
        ["line 9: unknown field of [train] `stepz`: did you mean `steps`?"]
    );
    let source = SMALLEST.replace("[train]", "[trian]");
    assert_eq!(
        problems(&source),
        ["line 8: unknown section `trian`: did you mean `train`?"]
    );
    let source = SMALLEST.replace("\"tiny\"", "\"tinny\"");
    let found = problems(&source).join("\n");
    assert!(
        found.contains("one of nano, tiny") && found.contains("did you mean `tiny`?"),
        "{found}"
    );
}

#[test]
fn all_problems_are_told_at_once_and_rules_between_fields_hold() {
    let source = SMALLEST
        .replace("steps = 30", "steps = 0")
        .replace("min_workers = 1", "min_workers = 9");
    assert_eq!(problems(&source).len(), 2);
    for (from, to, needle) in [
        (
            "min_workers = 1",
            "min_workers = 5",
            "min_workers = 5: must be at most max_workers = 4",
        ),
        (
            "microbatches = 8",
            "microbatches = 6",
            "max_workers = 4: must be at most 2",
        ),
        (
            "sequences = 2",
            "lanes = 3",
            "lanes = 3: must be a power of two that divides microbatches = 8",
        ),
        (
            "sequences = 2",
            "sequence_length = 4096",
            "must be at most model.max_position_embeddings = 128",
        ),
        (
            "preset = \"tiny\"",
            "hidden_size = 12\nnum_attention_heads = 4",
            "even multiple",
        ),
        (
            "preset = \"tiny\"",
            "num_key_value_heads = 3",
            "must divide num_attention_heads = 4",
        ),
        (
            "corpus = \"some/folder\"",
            "corpus = \"a\"\ndataset = \"b\"",
            "both given",
        ),
        (
            "name = \"first\"",
            "name = \"Not A Name\"",
            "a name of at most 63",
        ),
        ("[data]", "[data", "line 4: "),
        ("[train]\nsteps = 30\nseed = 7", "", ""),
    ] {
        let source = SMALLEST.replace(from, to);
        match Spec::parse(&source) {
            Ok(_) => assert!(needle.is_empty(), "{to} was accepted"),
            Err(error) => assert!(
                error.to_string().contains(needle) && !needle.is_empty(),
                "{to}: {error}"
            ),
        }
    }
    let source = format!(
        "train = 3\n{}",
        SMALLEST.replace("[train]\nsteps = 30\nseed = 7", "")
    );
    assert_eq!(
        problems(&source),
        ["line 1: `train` is a number: it must be a section, `[train]`"]
    );
}

#[test]
fn checkpoints_say_what_stays_and_where_copies_go() {
    let with = |fields: &str| format!("{SMALLEST}[checkpoint]\n{fields}\n");
    let source =
        with("every = 10\nkeep = 2\nkeep_every = 50\nkeep_best = 1\ntarget = \"s3://bucket/runs/first\"");
    let spec = Spec::parse(&source).unwrap();
    let target = Target::S3 {
        bucket: "bucket".to_owned(),
        prefix: "runs/first".to_owned(),
    };
    let expected = CheckpointSpec {
        every: 10,
        keep: 2,
        keep_every: 50,
        keep_best: 1,
        target: Some(target),
    };
    assert_eq!(spec.checkpoint, expected);
    assert_eq!(Spec::parse(&spec.to_toml().unwrap()).unwrap(), spec);
    let base = Spec::parse(SMALLEST).unwrap();
    assert_eq!(
        (base.checkpoint.keep_every, base.checkpoint.target.as_ref()),
        (0, None)
    );
    assert_eq!(spec.numerics_digest().unwrap(), base.numerics_digest().unwrap());

    for (fields, expected) in [
        (
            "keep_every = -1",
            "line 18: checkpoint.keep_every = -1: must be a whole number from 0 to 1000000000",
        ),
        (
            "keep_best = 1000001",
            "line 18: checkpoint.keep_best = 1000001: must be a whole number from 0 to 1000000",
        ),
        (
            "target = \"copies\"",
            "line 18: checkpoint.target = \"copies\": must be `file:///` and the absolute path of a folder, or \
             `s3://bucket/prefix`",
        ),
        (
            "target = 3",
            "line 18: checkpoint.target = 3: must be `file:///` and the absolute path of a folder, or \
             `s3://bucket/prefix`",
        ),
        (
            "targt = \"file:///a\"",
            "line 18: unknown field of [checkpoint] `targt`: did you mean `target`?",
        ),
        (
            "every = 20\nkeep_every = 50",
            "checkpoint.keep_every = 50: must be 0 or a multiple of every = 20, as only those steps have \
             checkpoints",
        ),
        (
            "every = 0\nkeep_every = 50",
            "checkpoint.keep_every = 50: must be 0 or a multiple of every = 0, as only those steps have \
             checkpoints",
        ),
    ] {
        assert_eq!(problems(&with(fields)), [expected]);
    }
}

#[test]
fn the_digest_follows_what_decides_the_bits_and_nothing_else() {
    let digest = |source: &str| Spec::parse(source).unwrap().numerics_digest().unwrap();
    let base = digest(SMALLEST);
    assert_eq!(
        base,
        digest(
            &SMALLEST
                .replace("first", "other")
                .replace("some/folder", "elsewhere")
        )
    );
    assert_eq!(
        base,
        digest(&SMALLEST.replace("min_workers = 1", "min_workers = 2"))
    );
    let with = |collective: &str| digest(&format!("{SMALLEST}\n[collective]\n{collective}\n"));
    for free in [
        "transport = \"tcp\"",
        "streams = 4",
        "overlap = false",
        "bucket_bytes = 4",
        "precision = \"f32\"",
    ] {
        assert_eq!(base, with(free), "{free}");
    }
    assert_ne!(base, with("precision = \"bf16\""));
    assert_ne!(base, digest(&SMALLEST.replace("seed = 7", "seed = 8")));
    assert_ne!(base, digest(&SMALLEST.replace("sequences = 2", "sequences = 4")));
}

#[test]
fn presets_have_the_sizes_they_say() {
    let size = |name| {
        presets()
            .into_iter()
            .find(|p| p.name == name)
            .unwrap()
            .model
            .parameters()
    };
    // By hand: 2·8192·512 + 8·(4·512² + 3·512·1376 + 2·512) + 512.
    assert_eq!(size("base"), 33_694_208);
    assert_eq!(size("gpt2"), 100_682_496);
}
