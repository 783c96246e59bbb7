"""mnist, cifar, uci_housing and image: real file formats, Paddle's shapes and ranges, and what stands in for them."""

import builtins
import gzip
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from tests.fluid.paddle import archives

from holdfast.errors import FormatError, MissingExtraError
from holdfast.fluid.paddle.dataset import cifar, image, mnist, uci_housing

IMAGES = (np.arange(3 * 28 * 28) % 256).reshape(3, 28, 28).astype(np.uint8)
LABELS = np.array([7, 0, 9], dtype=np.uint8)


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Make a package impossible to import."""
    real = builtins.__import__

    def refuse(name: str, *rest, **options):
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr("importlib.import_module", lambda name: refuse(name))


def test_mnist_reads_idx_files_as_paddle_does(home: Path) -> None:
    archives.mnist(home, images=IMAGES, labels=LABELS)
    archives.mnist(home, images=IMAGES[:1], labels=LABELS[:1], part="t10k")

    samples = list(mnist.train()())

    assert [label for _, label in samples] == [7, 0, 9]
    assert all(type(label) is int for _, label in samples)
    for (pixels, _), raw in zip(samples, IMAGES, strict=True):
        # The three steps of Paddle, in float32.
        expected = raw.reshape(784).astype("float32") / 255.0 * 2.0 - 1.0
        np.testing.assert_array_equal(pixels, expected, strict=True)
    assert len(list(mnist.test()())) == 1
    mnist.fetch()


def test_mnist_reads_more_than_one_block(home: Path) -> None:
    """Paddle reads blocks of 100, and fails where the number of samples is no multiple of it."""
    labels = np.arange(250) % 10
    archives.mnist(home, images=np.zeros((250, 28, 28)), labels=labels)

    assert [label for _, label in mnist.train()()] == labels.tolist()


def test_mnist_reads_uncompressed_files(home: Path) -> None:
    archives.write(home / "mnist" / "t10k-images-idx3-ubyte", archives.idx(IMAGES))
    archives.write(home / "mnist" / "t10k-labels-idx1-ubyte", archives.idx(LABELS))

    assert [label for _, label in mnist.test()()] == [7, 0, 9]


def test_mnist_does_not_mix_real_files_with_others(home: Path) -> None:
    archives.mnist(home, images=IMAGES, labels=LABELS)

    with pytest.raises(FileNotFoundError, match=r"mnist/t10k-images-idx3-ubyte\.gz.*put it there.*HOLDFAST_DATASETS"):
        mnist.test()


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("train-images-idx3-ubyte.gz", gzip.compress(archives.idx(IMAGES))[:-9], "no complete gzip file"),
        ("train-images-idx3-ubyte.gz", b"not gzip", "no complete gzip file"),
        ("train-images-idx3-ubyte.gz", gzip.compress(archives.idx(LABELS)), "must begin with the number 2051"),
        ("train-images-idx3-ubyte.gz", gzip.compress(b"\0\0"), "must begin with the number 2051"),
        ("train-images-idx3-ubyte.gz", gzip.compress(archives.idx(IMAGES)[:-1]), r"holds 2351 bytes.*\(3, 28, 28\)"),
        ("train-images-idx3-ubyte.gz", gzip.compress(archives.idx(IMAGES) + b"x"), "holds 2353 bytes"),
        ("train-labels-idx1-ubyte.gz", gzip.compress(archives.idx(LABELS[:2])), "has 3 images.*2 labels"),
    ],
)
def test_mnist_rejects_damaged_files(home: Path, name: str, data: bytes, complaint: str) -> None:
    archives.mnist(home, images=IMAGES, labels=LABELS)
    archives.write(home / "mnist" / name, data)

    with pytest.raises(FormatError, match=complaint):
        mnist.train()


def test_mnist_serves_the_digits_of_scikit_learn_and_says_so(home: Path) -> None:
    from sklearn.datasets import load_digits

    with pytest.warns(
        UserWarning, match=rf"no MNIST in {home}/mnist; serving scikit-learn's 1797 digits.*train-images"
    ):
        training = list(mnist.train()())
    with pytest.warns(UserWarning, match="every fifth"):
        testing = list(mnist.test()())

    assert (len(training), len(testing)) == (1438, 359)
    pixels, label = testing[0]
    digit = load_digits()
    assert label == digit.target[4]
    square = pixels.reshape(28, 28)
    assert (pixels.dtype, pixels.shape) == (np.dtype(np.float32), (784,))
    assert set(np.unique(square[:2])) == {-1.0}
    np.testing.assert_allclose(square[3:26:3, 3:26:3], digit.images[4] / 8 - 1, atol=1 / 255 + 1e-6)
    assert np.bincount([label for _, label in testing]).min() > 20  # every digit is tested
    assert max(sample.max() for sample, _ in training) == 1.0


def test_mnist_without_files_and_scikit_learn_says_where_to_put_them(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "sklearn")

    with pytest.raises(
        FileNotFoundError, match=rf"needs {home}/mnist/train-images-idx3-ubyte\.gz .*install\s+scikit-learn"
    ):
        mnist.train()


def cifar_batch(images: np.ndarray, labels: list[int], key: str = "labels") -> bytes:
    return pickle.dumps({b"data": images, key.encode(): labels, b"filenames": [b"a.png"] * len(labels)}, 2)


def write_cifar10(home: Path, *, train: int = 2) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (6, 3072), dtype=np.uint8)
    members = {
        f"cifar-10-batches-py/data_batch_{at + 1}": cifar_batch(images[2 * at : 2 * at + 2], [at, 9])
        for at in range(train)
    }
    members["cifar-10-batches-py/readme.html"] = b"<html>"
    members["cifar-10-batches-py/test_batch"] = cifar_batch(images[4:], [5, 6])
    archives.tar(home / "cifar" / "cifar-10-python.tar.gz", members)
    return images


def test_cifar10_reads_the_archive_of_pickles(home: Path) -> None:
    images = write_cifar10(home)

    training, testing = list(cifar.train10()()), list(cifar.test10()())

    assert [label for _, label in training] == [0, 9, 1, 9]
    assert [label for _, label in testing] == [5, 6]
    np.testing.assert_array_equal(training[3][0], (images[3] / 255.0).astype(np.float32), strict=True)


def test_cifar10_cycle_begins_again(home: Path) -> None:
    """Paddle spins here without end and without a sample."""
    write_cifar10(home, train=1)
    samples = cifar.train10(cycle=True)()

    assert [next(samples)[1] for _ in range(5)] == [0, 9, 0, 9, 0]


def test_cifar100_takes_the_fine_labels(home: Path) -> None:
    images = np.zeros((2, 3072), np.uint8)
    members = {
        "cifar-100-python/meta": pickle.dumps({}, 2),
        "cifar-100-python/test": cifar_batch(images, [99, 1], "fine_labels"),
        "cifar-100-python/train": cifar_batch(images, [3, 4], "fine_labels"),
    }
    archives.tar(home / "cifar" / "cifar-100-python.tar.gz", members)

    assert [label for _, label in cifar.train100()()] == [3, 4]
    assert [label for _, label in cifar.test100()()] == [99, 1]


@pytest.mark.parametrize(
    ("batch", "complaint"),
    [
        (pickle.dumps([1], 2), r"tar\.gz:.*data_batch_1 holds a list"),
        (cifar_batch(np.zeros((2, 4)), [1, 2]), "no data of uint8"),
        (cifar_batch(np.zeros((2, 4), np.uint8), [1]), "2 images and 1 labels"),
        (pickle.dumps(print, 2), "names __builtin__.print.*nothing was run"),
        (b"", "data_batch_1"),
    ],
)
def test_cifar10_rejects_another_content(home: Path, batch: bytes, complaint: str) -> None:
    archives.tar(home / "cifar" / "cifar-10-python.tar.gz", {"cifar-10-batches-py/data_batch_1": batch})

    with pytest.raises(FormatError, match=complaint):
        list(cifar.train10()())


def test_cifar10_rejects_a_truncated_archive(home: Path) -> None:
    write_cifar10(home)
    path = home / "cifar" / "cifar-10-python.tar.gz"
    path.write_bytes(path.read_bytes()[:-2000])

    with pytest.raises(FormatError, match="no complete tar archive"):
        list(cifar.train10()())


def test_cifar10_rejects_an_archive_without_batches(home: Path) -> None:
    archives.tar(home / "cifar" / "cifar-10-python.tar.gz", {"other": b""})

    with pytest.raises(FormatError, match="no member named …test_batch…"):
        list(cifar.test10()())


def test_cifar_says_where_to_put_the_archive(home: Path) -> None:
    for call in (cifar.train10, cifar.test10, cifar.train100, cifar.test100, cifar.fetch):
        with pytest.raises(FileNotFoundError, match=rf"needs {home}/cifar/cifar-100?-python\.tar\.gz.*kriz"):
            call()


def write_housing(home: Path, rows: np.ndarray) -> None:
    text = "\n".join(" " + "  ".join(f"{value:9.5f}" for value in row) for row in rows)
    archives.write(home / "uci_housing" / "housing.data", text.encode())


def test_uci_housing_scales_features_as_paddle_does(home: Path) -> None:
    rows = np.round(np.random.default_rng(1).uniform(0, 400, (10, 14)), 5)
    write_housing(home, rows)

    training, testing = list(uci_housing.train()()), list(uci_housing.test()())

    assert (len(training), len(testing)) == (8, 2)
    features, price = training[2]
    assert (features.dtype, features.shape, price.shape) == (np.dtype(np.float64), (13,), (1,))
    expected = (rows[2, :13] - rows[:, :13].sum(axis=0) / 10) / (rows[:, :13].max(axis=0) - rows[:, :13].min(axis=0))
    np.testing.assert_allclose(features, expected, rtol=1e-12)
    assert price[0] == rows[2, 13]
    np.testing.assert_array_equal(uci_housing.predict_reader()[0], testing[0][0])
    assert len(uci_housing.feature_names) == 13
    assert uci_housing.UCI_TRAIN_DATA is not None


def test_uci_housing_makes_zeros_of_a_constant_column(home: Path) -> None:
    rows = np.arange(70.0).reshape(5, 14)
    rows[:, 3] = 1
    write_housing(home, rows)

    assert all(features[3] == 0 for features, _ in uci_housing.train()())


@pytest.mark.parametrize(
    ("text", "complaint"), [(b"1 2 3", "3 numbers, expected rows of 14"), (b"", "0 numbers"), (b"a", "no number")]
)
def test_uci_housing_rejects_other_files(home: Path, text: bytes, complaint: str) -> None:
    archives.write(home / "uci_housing" / "housing.data", text)

    with pytest.raises(FormatError, match=rf"housing\.data.*{complaint}"):
        uci_housing.train()


def test_uci_housing_serves_the_wines_of_scikit_learn_and_says_so(home: Path) -> None:
    with pytest.warns(
        UserWarning, match=rf"no {home}/uci_housing/housing\.data; serving scikit-learn's 178 wines.*cultivar"
    ):
        training = list(uci_housing.train()())
    with pytest.warns(UserWarning, match="178 wines"):
        testing = list(uci_housing.test()())

    assert (len(training), len(testing)) == (143, 35)
    assert {features.shape for features, _ in training + testing} == {(13,)}
    assert {float(target[0]) for _, target in testing} == {0.0, 1.0, 2.0}
    assert np.abs(np.mean([features for features, _ in training + testing], axis=0)).max() < 1e-12


def test_uci_housing_without_file_and_scikit_learn_says_where_to_put_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "sklearn")

    with pytest.raises(FileNotFoundError, match=rf"needs {home}/uci_housing/housing\.data"):
        uci_housing.test()


def test_uci_housing_has_no_model_to_download(home: Path) -> None:
    with pytest.raises(NotImplementedError, match="fluid_model is not provided"):
        uci_housing.fluid_model()


PICTURE = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)


def test_image_cuts_and_turns_without_opencv() -> None:
    np.testing.assert_array_equal(image.center_crop(PICTURE, 2), PICTURE[2:4, 1:3])
    np.testing.assert_array_equal(image.left_right_flip(PICTURE), PICTURE[:, ::-1])
    assert image.to_chw(PICTURE).shape == (3, 6, 4)
    np.random.seed(3)
    crop = image.random_crop(PICTURE, 3)
    assert crop.shape == (3, 3, 3)
    assert any(np.array_equal(crop, PICTURE[y : y + 3, x : x + 3]) for y in range(4) for x in range(2))


@pytest.mark.parametrize("crop", [image.center_crop, image.random_crop])
def test_image_refuses_a_part_larger_than_the_picture(crop) -> None:
    with pytest.raises(ValueError, match="6 × 4 pixels has no part of 5 × 5"):
        crop(PICTURE, 5)


def test_image_without_opencv_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "cv2")

    for call in (
        lambda: image.resize_short(PICTURE, 2),
        lambda: image.load_image("x.jpg"),
        lambda: image.load_image_bytes(b""),
    ):
        with pytest.raises(MissingExtraError, match="pip install opencv-python-headless"):
            call()


def test_image_scales_and_subtracts_the_mean_with_opencv(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    flat = np.full((8, 6, 3), 100, np.uint8)
    cv2.imwrite(str(tmp_path / "flat.png"), flat)

    assert image.resize_short(flat, 3).shape == (4, 3, 3)
    for is_train in (False, True):
        done = image.load_and_transform(str(tmp_path / "flat.png"), 6, 4, is_train, mean=[100, 90, 0])
        assert (done.shape, done.dtype) == ((3, 4, 4), np.dtype(np.float32))
        np.testing.assert_array_equal(done.mean(axis=(1, 2)), [0, 10, 100])
    with pytest.raises(ValueError, match="no picture"):
        image.load_image_bytes(b"nonsense")


def test_image_batches_refuse_and_say_why() -> None:
    with pytest.raises(NotImplementedError, match="writes pickles"):
        image.batch_images_from_tar("102flowers.tgz", "train", {})


def test_no_warning_where_the_files_are_there(home: Path) -> None:
    archives.mnist(home, images=IMAGES, labels=LABELS)
    write_housing(home, np.arange(70.0).reshape(5, 14))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert next(mnist.train()())
        assert next(uci_housing.train()())
