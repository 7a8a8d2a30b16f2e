"""Values that datatrove 0.10.1 computes for our texts: writes expected.json beside this file.

pip install datatrove==0.10.1 spacy regex; python expect.py

Words are split at white space, as ours are, by a tokenizer given to datatrove; `spacy` holds what its own English
tokenizer makes of the same text.
"""

import json
import pathlib

from datatrove.data import Document
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import (
    GopherRepetitionFilter,
    find_all_duplicate,
    find_duplicates,
)
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION, split_into_words

HERE = pathlib.Path(__file__).parent


def scores(text):
    words = text.split()
    lines = text.splitlines()
    filled = [line for line in text.split("\n") if line.strip()]
    paragraphs = GopherRepetitionFilter().paragraph_exp.split(text.strip())
    values = {
        "words": len(words),
        "non_symbol_words": sum(any(c not in PUNCTUATION_SET for c in w) for w in words),
        "hashes_per_word": text.count("#") / len(words),
        "ellipses_per_word": (text.count("...") + text.count("…")) / len(words),
        "bullet_lines": sum(line.lstrip().startswith(("•", "-")) for line in lines) / len(lines),
        "ellipsis_lines": sum(line.rstrip().endswith(("...", "…")) for line in lines) / len(lines),
        "words_with_letter": sum(any(c.isalpha() for c in w) for w in words) / len(words),
        "punctuated_lines": sum(line.endswith(tuple(TERMINAL_PUNCTUATION)) for line in filled) / len(filled),
        "short_lines": sum(len(line) <= 30 for line in filled) / len(filled),
        "fineweb_duplicate_line_chars": find_duplicates(filled)[1] / len(text.replace("\n", "")),
        "newlines_per_word": text.count("\n") / len(words),
        "duplicate_lines": find_duplicates(filled)[0] / len(filled),
        "duplicate_line_chars": find_duplicates(filled)[1] / len(text),
        "duplicate_paragraphs": find_duplicates(paragraphs)[0] / len(paragraphs),
        "duplicate_paragraph_chars": find_duplicates(paragraphs)[1] / len(text),
    }
    for n in range(5, 11):
        values[f"duplicate_{n}gram"] = find_all_duplicate(words, n) / len(text)
    return values


def reason(filter, text):
    result = filter.filter(Document(text=text, id="0"))
    return None if result is True else result[1]


def cleaned(text):
    """What is left of the lines if no rule drops the document."""
    document = Document(text=text, id="0")
    C4QualityFilter(min_num_sentences=-1, filter_lorem_ipsum=False, filter_curly_bracket=False).filter(document)
    return document.text


def main():
    expected = {}
    for name, text in json.loads((HERE / "texts.json").read_text()).items():
        filters = [GopherQualityFilter(), GopherRepetitionFilter(), C4QualityFilter(), FineWebQualityFilter()]
        spacy = split_into_words(text)
        non_symbol = [w for w in spacy if any(c not in PUNCTUATION_SET for c in w)]
        expected[name] = {
            "scores": scores(text),
            "spacy": {
                "words": len(spacy),
                "non_symbol_words": len(non_symbol),
                "mean_word_length": sum(map(len, non_symbol)) / len(non_symbol),
                "reasons": [reason(filter, text) for filter in filters],
            },
            "cleaned": cleaned(text),
        }
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


main()
