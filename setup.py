"""What pyproject.toml cannot say: the list of packages, and the start-up hook's ``.pth`` file.

The wheel and the editable wheel both carry the ``.pth`` file at the top, so that pip puts it into
site-packages, records it, and removes it on uninstall.
"""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

PTH = Path("lm_eval_ext/harness/lm_eval_ext_bridge.pth")

# Top-level folders installed below lm_eval_ext: see [tool.setuptools.package-dir].
MAPPED_PACKAGES = ["lm_eval_ext.model_wrappers", "lm_eval_ext.tasks"]


class BuildWithHook(build_py):
    """Build the packages, then put the ``.pth`` file beside them."""

    def run(self):
        """Copy to the build folder, or straight into the wheel of an editable install."""
        super().run()
        # An editable build leaves build_lib out of its wheel; setuptools points install_lib at the
        # folder whose content does go in.
        editable_lib = self.get_finalized_command("install").install_lib
        shutil.copy(PTH, editable_lib if self.editable_mode else self.build_lib)

    def get_outputs(self, include_bytecode=True):
        """Count the file among the outputs, as `install` records them."""
        outputs = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, str(Path(self.build_lib, PTH.name))]


setup(
    packages=[*find_packages(include=["lm_eval_ext", "lm_eval_ext.*"]), *MAPPED_PACKAGES],
    cmdclass={"build_py": BuildWithHook},
)
