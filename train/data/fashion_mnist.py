"""Fashion-MNIST: ten kinds of clothing, 60,000 + 10,000 grey images of 28x28 (Xiao et al. 2017)."""

from __future__ import annotations

from ..dataset import DataSet
from ..idx import IdxImages

# arXiv 1708.07747. The digests are of files whose md5 are those the project publishes.
PLUGIN: DataSet = IdxImages(
    name="fashion_mnist",
    addresses=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",),
    sha256={
        "train-images-idx3-ubyte": (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
        ),
        "train-labels-idx1-ubyte": (
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
        ),
        "t10k-images-idx3-ubyte": (
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
        ),
        "t10k-labels-idx1-ubyte": (
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
        ),
    },
)
