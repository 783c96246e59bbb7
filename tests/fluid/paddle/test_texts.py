"""imdb, imikolov, movielens, sentiment, wmt14, wmt16 and conll05 from archives of the real formats."""

import gzip
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.fluid.paddle import archives

from holdfast.errors import FormatError
from holdfast.fluid.paddle.dataset import conll05, imdb, imikolov, movielens, sentiment, wmt14, wmt16

REVIEWS = {
    "aclImdb/train/pos/0_9.txt": b"A good, GOOD film!\n",
    "aclImdb/train/pos/1_8.txt": b"good.",
    "aclImdb/train/neg/0_1.txt": b"a bad film<br />",
    "aclImdb/train/unsup/0_0.txt": b"good good good",
    "aclImdb/test/neg/5_2.txt": b"bad \xe9t\xe9",
    "aclImdb/test/pos/6_9.txt": b"film",
    "aclImdb/imdb.vocab": b"good",
}


@pytest.fixture(params=["aclImdb_v1.tar.gz", "imdb%2FaclImdb_v1.tar.gz"])
def reviews(request: pytest.FixtureRequest, home: Path) -> Path:
    return archives.tar(home / "imdb" / request.param, REVIEWS)


def test_imdb_numbers_words_by_frequency_and_gives_good_ones_first(reviews: Path) -> None:
    words = imdb.build_dict(re.compile(r"aclImdb/train/(pos|neg)/.*\.txt$"), 0)

    assert dict(words) == {b"good": 0, b"a": 1, b"bad": 2, b"film": 3, b"filmbr": 4, "<unk>": 5}
    assert list(imdb.train(words)()) == [([1, 0, 0, 3], 0), ([0], 0), ([1, 2, 4], 1)]
    assert list(imdb.test(words)()) == [([3], 0), ([2, 5], 1)]


def test_imdb_leaves_out_rare_words(reviews: Path) -> None:
    assert dict(imdb.build_dict(re.compile(r"aclImdb/train/(pos|neg)/.*\.txt$"), 1)) == {
        b"good": 0,
        b"a": 1,
        "<unk>": 2,
    }
    assert dict(imdb.word_dict()) == {"<unk>": 0}  # no word occurs more than 150 times


def test_word_dictionaries_take_text_for_bytes(reviews: Path) -> None:
    words = imdb.build_dict(re.compile(r"aclImdb/train/pos/.*\.txt$"), 0)

    assert words["good"] == words[b"good"] == words.get("good") == words.get(b"good") == 0
    assert words[b"<unk>"] == words["<unk>"] == len(words) - 1
    assert "good" in words
    assert "none" not in words
    assert 7 not in words
    assert words.get("none", 5) == 5
    assert words.get(None) is None
    with pytest.raises(KeyError, match="none"):
        words["none"]


def test_imdb_rejects_a_truncated_archive(home: Path) -> None:
    path = archives.tar(home / "imdb" / "aclImdb_v1.tar.gz", REVIEWS)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(FormatError, match="no complete tar archive"):
        imdb.word_dict()


PTB = {
    "./simple-examples/data/ptb.char.train.txt": b" x x \n",
    "./simple-examples/data/ptb.train.txt": b" the cat <unk> the \n the \n",
    "./simple-examples/data/ptb.valid.txt": b" the dog \n",
}


@pytest.fixture(params=["simple-examples.tgz", "imikolov%2Fsimple-examples.tgz"])
def treebank(request: pytest.FixtureRequest, home: Path) -> Path:
    return archives.tar(home / "imikolov" / request.param, PTB)


def test_imikolov_numbers_words_as_paddle_does_under_python_3(treebank: Path) -> None:
    # Twice <unk>: that of the corpus, which is bytes, and the one behind all words.
    expected = {b"the": 0, "<e>": 1, "<s>": 2, b"<unk>": 3, b"cat": 4, b"dog": 5, "<unk>": 6}

    assert dict(imikolov.build_dict(0)) == expected
    assert dict(imikolov.build_dict(2)) == {b"the": 0, "<e>": 1, "<s>": 2, "<unk>": 3}


def test_imikolov_yields_n_grams(treebank: Path) -> None:
    words = imikolov.build_dict(0)

    assert list(imikolov.train(words, 4)()) == [(2, 0, 4, 3), (0, 4, 3, 0), (4, 3, 0, 1)]
    assert list(imikolov.test(words, 2)()) == [(2, 0), (0, 5), (5, 1)]
    assert list(imikolov.test(imikolov.build_dict(2), 2)()) == [(2, 0), (0, 3), (3, 1)]


def test_imikolov_yields_sequences_and_leaves_out_long_ones(treebank: Path) -> None:
    words = imikolov.build_dict(0)

    both = list(imikolov.train(words, 0, imikolov.DataType.SEQ)())
    short = list(imikolov.train(words, 2, imikolov.DataType.SEQ)())

    assert both == [([2, 0, 4, 3, 0], [0, 4, 3, 0, 1]), ([2, 0], [0, 1])]
    assert short == both[1:]


@pytest.mark.parametrize(
    ("n", "kind", "complaint"), [(0, 1, "at least one word"), (3, 9, "NGRAM or DataType.SEQ, not 9")]
)
def test_imikolov_refuses_other_arguments(treebank: Path, n: int, kind: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        imikolov.train(imikolov.build_dict(0), n, kind)


def test_imikolov_rejects_an_archive_without_the_corpus(home: Path) -> None:
    archives.tar(home / "imikolov" / "simple-examples.tgz", {"other": b""})

    with pytest.raises(FormatError, match=r"has no member simple-examples/data/ptb\.train\.txt"):
        imikolov.build_dict()


@pytest.mark.parametrize("name", ["ml-1m.zip", "movielens%2Fml-1m.zip"])
def test_movielens_gives_users_films_and_ratings(home: Path, name: str) -> None:
    archives.movielens(home, ratings=200, name=name)

    training, testing = list(movielens.train()()), list(movielens.test()())

    # The split is that of Paddle: one number of NumPy's old generator for each rating.
    draws = np.random.RandomState(0).random_sample(200)
    assert (len(training), len(testing)) == ((draws >= 0.1).sum(), (draws < 0.1).sum())
    titles, categories = movielens.get_movie_title_dict(), movielens.movie_categories()
    assert titles == {"cité": 0, "des": 1, "enfants": 2, "la": 3, "perdus,": 4, "story": 5, "toy": 6}
    assert categories == {"Animation": 0, "Comedy": 1, "Drama": 2}
    first = int(np.argmax(draws >= 0.1))
    user = [[1, 1, 0, 10], [2, 0, 6, 16]][first % 2]
    film = [[1, [0, 1], [6, 5]], [2, [1, 2], [0, 1, 2, 4, 3]]][first % 2]
    assert training[0] == [*user, *film, [(1 + first % 5) * 2 - 5.0]]
    assert (movielens.max_user_id(), movielens.max_movie_id(), movielens.max_job_id()) == (2, 2, 16)
    assert str(movielens.user_info()[1]) == "<UserInfo id(1), gender(F), age(1), job(10)>"
    assert str(movielens.movie_info()[1]) == "<MovieInfo id(1), title(Toy Story ), categories(['Animation', 'Comedy'])>"


def test_movielens_leaves_numpy_s_generator_alone(home: Path) -> None:
    """Paddle seeds it with 0 at each reading."""
    archives.movielens(home, ratings=5)
    np.random.seed(42)
    expected = np.random.RandomState(42).random_sample()

    list(movielens.train()())

    assert np.random.random_sample() == expected


def test_movielens_numbers_are_the_same_in_every_process(home: Path) -> None:
    """Paddle's come from the order of a set, which differs between processes."""
    archives.movielens(home, ratings=5)
    code = "from holdfast.fluid.paddle.dataset import movielens as m; print(m.get_movie_title_dict(), m.movie_categories())"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "HOLDFAST_DATASETS": str(home), "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert len(printed) == 1


@pytest.mark.parametrize("content", [b"no zip", b""])
def test_movielens_rejects_a_damaged_archive(home: Path, content: bytes) -> None:
    archives.write(home / "movielens" / "ml-1m.zip", content)

    with pytest.raises(FormatError, match="no complete ml-1m archive"):
        movielens.train()


def test_sentiment_alternates_bad_and_good_reviews(home: Path) -> None:
    folder = home / "corpora" / "movie_reviews"
    for at in range(1000):
        archives.write(folder / "neg" / f"cv{at:03}_1.txt", b"bad film .\n")
        archives.write(folder / "pos" / f"cv{at:03}_2.txt", b"good film , isn't it ?\n")

    assert sentiment.get_word_dict()[:2] == [("film", 0), ("'", 1)]
    numbers = dict(sentiment.get_word_dict())
    training, testing = list(sentiment.train()), list(sentiment.test())

    assert (len(training), len(testing)) == (1600, 400)
    assert training[0] == ([numbers["bad"], 0, numbers["."]], 0)
    assert training[1] == ([numbers[word] for word in ("good", "film", ",", "isn", "'", "t", "it", "?")], 1)


WMT14 = {
    "wmt14/train/train": b"un chat\ta cat\nrien\nun\ta b\nx" + b" y" * 90 + b"\ttoo long\n",
    "wmt14/test/test": b"chat\tcat\n",
    "wmt14/gen/gen": b"un\ta\n",
    "wmt14/src.dict": b"<s>\n<e>\n<unk>\nun\nchat\n",
    "wmt14/trg.dict": b"<s>\n<e>\n<unk>\na\ncat\n",
}


@pytest.mark.parametrize("name", ["wmt14.tgz", "wmt%2Fwmt14.tgz"])
def test_wmt14_gives_source_target_and_next(home: Path, name: str) -> None:
    archives.tar(home / "wmt14" / name, WMT14)

    assert list(wmt14.train(5)()) == [([0, 3, 4, 1], [0, 3, 4], [3, 4, 1]), ([0, 3, 1], [0, 3, 2], [3, 2, 1])]
    assert list(wmt14.test(4)()) == [([0, 2, 1], [0, 2], [2, 1])]
    assert list(wmt14.gen(5)()) == [([0, 3, 1], [0, 3], [3, 1])]
    assert wmt14.get_dict(4)[0] == {0: "<s>", 1: "<e>", 2: "<unk>", 3: "un"}
    assert wmt14.get_dict(4, reverse=False)[1] == {"<s>": 0, "<e>": 1, "<unk>": 2, "a": 3}


def test_wmt14_rejects_a_dictionary_without_marks(home: Path) -> None:
    archives.tar(home / "wmt14" / "wmt14.tgz", WMT14)

    with pytest.raises(FormatError, match=r"first 1 words of trg\.dict lack \['<e>'\]"):
        list(wmt14.train(1)())


WMT16 = {
    "wmt16/train": b"a b a\tx y\nbroken\na c\ty\n",
    "wmt16/test": b"a d\tx\n",
    "wmt16/val": b"b\ty\n",
}


def test_wmt16_builds_dictionaries_from_the_training_set(home: Path) -> None:
    archives.tar(home / "wmt16" / "wmt16.tar.gz", WMT16)

    assert wmt16.get_dict("en", 5) == {"<s>": 0, "<e>": 1, "<unk>": 2, "a": 3, "b": 4}
    assert wmt16.get_dict("de", 99, reverse=True) == {0: "<s>", 1: "<e>", 2: "<unk>", 3: "y", 4: "x"}
    assert list(wmt16.train(5, 99)()) == [
        ([0, 3, 4, 3, 1], [0, 4, 3], [4, 3, 1]),
        ([0, 3, 2, 1], [0, 3], [3, 1]),
    ]
    assert list(wmt16.test(99, 5, "de")()) == [([0, 4, 1], [0, 3, 2], [3, 2, 1])]
    assert list(wmt16.validation(99, 99)()) == [([0, 4, 1], [0, 3], [3, 1])]
    assert not list((home / "wmt16").glob("*.dict"))  # nothing is written beside the archive


def test_wmt16_refuses_other_languages(home: Path) -> None:
    for call in (lambda: wmt16.train(5, 5, "fr"), lambda: wmt16.get_dict("fr", 5)):
        archives.tar(home / "wmt16" / "wmt16.tar.gz", WMT16)
        with pytest.raises(ValueError, match="'en' or 'de', not 'fr'"):
            call()


def write_conll05(home: Path, props: bytes) -> None:
    words = b"The\ncat\nsat\ndown\n\n"
    archives.tar(
        home / "conll05st" / "conll05st-tests.tar.gz",
        {
            "conll05st-release/test.wsj/words/test.wsj.words.gz": gzip.compress(words),
            "conll05st-release/test.wsj/props/test.wsj.props.gz": gzip.compress(props),
        },
    )
    for name, text in (
        ("conll05st%2FwordDict.txt", "UNK\nbos\neos\nThe\ncat\nsat\n"),
        ("verbDict.txt", "run\nsit\n"),
        ("targetDict.txt", "B-V\nI-V\nB-A0\nI-A0\nB-AM-DIR\nO\n"),
        ("emb", "vectors"),
    ):
        archives.write(home / "conll05st" / name, text.encode())


def test_conll05_gives_the_nine_lists(home: Path) -> None:
    write_conll05(home, b"-\t(A0*\n-\t*)\nsit\t(V*)\n-\t(AM-DIR*)\n\n")

    words, verbs, labels = conll05.get_dict()
    ((sentence, *context, predicate, marks, roles),) = conll05.test()()

    assert labels == {"B-A0": 0, "I-A0": 1, "B-AM-DIR": 2, "I-AM-DIR": 3, "B-V": 4, "I-V": 5, "O": 6}
    assert (len(words), verbs) == (6, {"run": 0, "sit": 1})
    assert sentence == [3, 4, 5, 0]
    assert context == [[3] * 4, [4] * 4, [5] * 4, [0] * 4, [2] * 4]
    assert predicate == [1] * 4
    assert marks == [1, 1, 1, 1]
    assert roles == [0, 1, 4, 2]
    assert Path(conll05.get_embedding()).read_text() == "vectors"
    conll05.fetch()


def test_conll05_repeats_a_sentence_for_each_predicate(home: Path) -> None:
    write_conll05(home, b"sit (V*) *\n- * *\nrun * (V*\n- * *)\n\n")

    samples = list(conll05.test()())

    assert [sample[6][0] for sample in samples] == [1, 0]
    assert [sample[8] for sample in samples] == [[4, 6, 6, 6], [6, 6, 4, 5]]
    assert [sample[1][0] for sample in samples] == [1, 3]  # two words before the predicate: bos, The
    assert samples[0][7] == [1, 1, 1, 0]


def test_conll05_rejects_unknown_marks(home: Path) -> None:
    write_conll05(home, b"- A0\n- *\nsit (V*)\n- *\n\n")

    with pytest.raises(FormatError, match=r"mark 'A0', expected one such as \(A0\*"):
        list(conll05.test()())


def test_conll05_rejects_a_damaged_archive(home: Path) -> None:
    write_conll05(home, b"")
    archives.write(home / "conll05st" / "conll05st-tests.tar.gz", b"nothing")

    with pytest.raises(FormatError, match="no complete archive"):
        list(conll05.test()())


@pytest.mark.parametrize(
    ("call", "file"),
    [
        (imdb.word_dict, "imdb/aclImdb_v1.tar.gz"),
        (imdb.fetch, "imdb/aclImdb_v1.tar.gz"),
        (imikolov.build_dict, "imikolov/simple-examples.tgz"),
        (imikolov.fetch, "imikolov/simple-examples.tgz"),
        (movielens.train, "movielens/ml-1m.zip"),
        (movielens.max_user_id, "movielens/ml-1m.zip"),
        (movielens.fetch, "movielens/ml-1m.zip"),
        (sentiment.train, "corpora/movie_reviews"),
        (sentiment.fetch, "corpora/movie_reviews"),
        (lambda: wmt14.train(30), "wmt14/wmt14.tgz"),
        (wmt14.fetch, "wmt14/wmt14.tgz"),
        (lambda: wmt16.train(30, 30), "wmt16/wmt16.tar.gz"),
        (wmt16.fetch, "wmt16/wmt16.tar.gz"),
        (conll05.test, "conll05st/wordDict.txt"),
        (conll05.fetch, "conll05st/conll05st-tests.tar.gz"),
    ],
)
def test_missing_files_are_named_with_their_place(home: Path, call, file: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"needs {home}/{file}.*downloads nothing.*HOLDFAST_DATASETS"):
        call()
