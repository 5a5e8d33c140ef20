"""The two C++ extensions, and this file left out of the wheel."""

from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup
from setuptools.command.build_py import build_py

FLAGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden"]
ENGINE = ["bindings", "dispatch", "executor", "parameters", "plan"]


class Rooms(build_py):
    """The package is the repository root; setup.py is not part of it."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        modules = super().find_package_modules(package, package_dir)
        return [module for module in modules if module[1] != "setup"]


ParallelCompile("SNNPIPE_BUILD_JOBS", default=0).install()
setup(
    cmdclass={"build_py": Rooms},
    ext_modules=[
        Pybind11Extension(
            "snnpipe.deploy.engine._engine",
            [f"deploy/engine/{name}.cpp" for name in ENGINE],
            cxx_std=17,
            extra_compile_args=FLAGS,
            define_macros=[("SNNPIPE_FLAGS", f'"{" ".join(FLAGS)}"')],
            depends=[str(path) for path in Path("deploy/engine").glob("*.hpp")],
        ),
        Pybind11Extension(
            "snnpipe.train.kernels._neuron",
            ["train/kernels/neuron.cpp"],
            cxx_std=17,
            extra_compile_args=FLAGS,
            depends=[str(path) for path in Path("train/kernels").glob("*.hpp")],
        ),
    ],
)
