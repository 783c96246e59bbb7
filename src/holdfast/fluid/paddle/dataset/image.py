"""`paddle.dataset.image`: cutting, turning and scaling pictures. Scaling and reading files need OpenCV, the rest does not."""

from __future__ import annotations

import importlib
from typing import Any, NoReturn

import numpy as np

from holdfast.errors import MissingExtraError

Picture = np.ndarray[Any, Any]


def load_image_bytes(bytes: bytes, is_color: bool = True) -> Picture:
    """The picture that these bytes of a file hold: uint8 (height, width, 3) in the order BGR, or (height, width) if not in colour.

    Raises:
        MissingExtraError: OpenCV is not installed.
        ValueError: this is no picture.
    """
    return _picture(_cv2().imdecode(np.frombuffer(bytes, np.uint8), int(is_color)), f"{len(bytes)} bytes")


def load_image(file: str, is_color: bool = True) -> Picture:
    """The picture in a file; see `load_image_bytes`."""
    return _picture(_cv2().imread(file, int(is_color)), file)


def resize_short(im: Picture, size: int) -> Picture:
    """The picture scaled, bicubically, so that its shorter side is `size`.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    height, width = im.shape[:2]
    short = min(height, width)
    cv2 = _cv2()
    scaled: Picture = cv2.resize(im, (size * width // short, size * height // short), interpolation=cv2.INTER_CUBIC)
    return scaled


def to_chw(im: Picture, order: tuple[int, ...] = (2, 0, 1)) -> Picture:
    """A view with the axes in another order: from height, width, channels to channels first."""
    return im.transpose(order)


def center_crop(im: Picture, size: int, is_color: bool = True) -> Picture:
    """A view of the `size` × `size` pixels in the middle."""
    del is_color
    height, width = im.shape[:2]
    return _cropped(im, (height - size) // 2, (width - size) // 2, size)


def random_crop(im: Picture, size: int, is_color: bool = True) -> Picture:
    """A view of `size` × `size` pixels somewhere; NumPy's global generator decides where."""
    del is_color
    height, width = im.shape[:2]
    _cropped(im, 0, 0, size)
    down, right = (int(np.random.randint(0, room - size + 1)) for room in (height, width))
    return _cropped(im, down, right, size)


def left_right_flip(im: Picture, is_color: bool = True) -> Picture:
    """A view with left and right exchanged."""
    del is_color
    return im[:, ::-1]


def simple_transform(
    im: Picture, resize_size: int, crop_size: int, is_train: bool, is_color: bool = True, mean: Any = None
) -> Picture:
    """The picture scaled, cropped (for training at random, and flipped half of the time), channels first, minus `mean`, float32.

    Args:
        im: (height, width, channels) or (height, width).
        resize_size: shorter side after scaling.
        crop_size: side after cropping.
        is_train: crop and flip at random, by NumPy's global generator; else the middle.
        is_color: whether `mean` of one dimension is for channels.
        mean: one number for each channel, or a whole picture; None for none.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    im = resize_short(im, resize_size)
    if is_train:
        im = random_crop(im, crop_size)
        if np.random.randint(2) == 0:
            im = left_right_flip(im)
    else:
        im = center_crop(im, crop_size)
    im = (to_chw(im) if im.ndim == 3 else im).astype(np.float32)
    if mean is None:
        return im
    minus = np.asarray(mean, dtype=np.float32)
    return im - (minus[:, None, None] if minus.ndim == 1 and is_color else minus)


def load_and_transform(
    filename: str, resize_size: int, crop_size: int, is_train: bool, is_color: bool = True, mean: Any = None
) -> Picture:
    """`simple_transform` of the picture in a file."""
    return simple_transform(load_image(filename, is_color), resize_size, crop_size, is_train, is_color, mean)


def batch_images_from_tar(data_file: str, dataset_name: str, img2label: Any, num_per_batch: int = 1024) -> NoReturn:
    """Refuses.

    Raises:
        NotImplementedError: always: it writes pickles, which Holdfast does not.
    """
    del dataset_name, img2label, num_per_batch
    raise NotImplementedError(
        f"paddle.dataset.image.batch_images_from_tar({data_file!r}) writes pickles, which Holdfast does not"
    )


def _cropped(im: Picture, down: int, right: int, size: int) -> Picture:
    if size > min(im.shape[:2]):
        raise ValueError(f"a picture of {im.shape[0]} × {im.shape[1]} pixels has no part of {size} × {size}")
    return im[down : down + size, right : right + size]


def _picture(found: Any, source: str) -> Picture:
    if found is None:
        raise ValueError(f"{source}: OpenCV finds no picture there")
    picture: Picture = found
    return picture


def _cv2() -> Any:
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise MissingExtraError(
            "this function of paddle.dataset.image needs OpenCV: pip install opencv-python-headless"
        ) from error
