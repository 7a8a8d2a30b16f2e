"""A stage from raw text to a dataset in datatrove, or in tokenizers: the peer of `lockstep bench data`.

    python data.py '{"stage": "filters", "input": "documents.jsonl", "bytes": 1000000, "folder": "scratch",
                     "tokenizer": "tokenizer.json", "ids": "ids.bin", "vocab_size": 8192}'

Stages are filters, pii and minhash of datatrove, and train and tokens of tokenizers. One process, one thread. Reading is not
timed. Prints one line of JSON: documents, bytes, documents that are left, seconds of processor and of clock, peak resident
bytes. datatrove cuts words with spaCy's English rules, as it does by default; no data is fetched for that.
"""
import json
import os
import pathlib
import resource
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
plan = json.loads(sys.argv[1])
folder = pathlib.Path(plan["folder"])


def read():
    texts, size = [], 0
    with open(plan["input"], encoding="utf-8") as lines:
        for line in lines:
            texts.append(json.loads(line)["text"])
            size += len(texts[-1].encode())
            if size >= plan["bytes"]:
                break
    return texts, size


def documents():
    from datatrove.data import Document

    return [Document(text=text, id=str(number)) for number, text in enumerate(texts)]


def warm():
    """Loads the word cutter, which is not to be timed."""
    from datatrove.utils.text import split_into_sentences, split_into_words

    split_into_words("Two words."), split_into_sentences("One. Two.")


def filters():
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    steps = [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(), FineWebQualityFilter()]
    given = documents()
    warm()
    # A document that a filter drops does not reach the next, as in a pipeline.
    return lambda: sum(all(step.filter(document) is True for step in steps) for document in given)


def pii():
    from datatrove.pipeline.formatters import PIIFormatter

    formatter = PIIFormatter()
    return lambda: len([formatter.format(text) for text in texts])


def minhash():
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig

    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
    signatures, buckets, removed = (str(folder / name) for name in ("signatures", "buckets", "removed"))
    given = documents()
    warm()

    def run():
        MinhashDedupSignature(output_folder=signatures, config=config).run(iter(given), 0, 1)
        for bucket in range(config.num_buckets):
            step = MinhashDedupBuckets(input_folder=signatures, output_folder=buckets, config=config)
            step.run(None, bucket, config.num_buckets)
        MinhashDedupCluster(input_folder=buckets, output_folder=removed, config=config).run(None, 0, 1)
        return sum(1 for _ in MinhashDedupFilter(input_folder=removed).run(iter(given), 0, 1))

    return run


def train():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    # Longer texts are cut, as ours are in training.
    parts = [text[at : at + 100_000] for text in texts for at in range(0, len(text), 100_000)]

    def run():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.train_from_iterator(
            parts,
            trainers.BpeTrainer(
                vocab_size=plan["vocab_size"],
                min_frequency=2,
                show_progress=False,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                special_tokens=["<|endoftext|>"],
            ),
        )
        tokenizer.save(plan["tokenizer"])
        return len(texts)

    return run


def tokens():
    import array

    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(plan["tokenizer"])
    tokenizer.encode_special_tokens = True

    def run():
        ids = array.array("I")
        for text in texts:
            ids.extend(tokenizer.encode(text, add_special_tokens=False).ids)
        pathlib.Path(plan["ids"]).write_bytes(ids.tobytes())
        return len(texts)

    return run


texts, size = read()
run = {"filters": filters, "pii": pii, "minhash": minhash, "train": train, "tokens": tokens}[plan["stage"]]()
# datatrove logs to standard error, and prints nothing.
clock, processor = time.perf_counter(), time.process_time()
kept = run()
took = {
    "bytes": size,
    "documents": len(texts),
    "kept": kept,
    "processor_seconds": time.process_time() - processor,
    "seconds": time.perf_counter() - clock,
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}
print(json.dumps(took), flush=True)
