"""Detection runs by papermill at the tiny scale, whatever is recorded."""

from papermill_run import check_tables

# A module behind a frozen norm is a part of it, and trains all the same.
TRAINS = """
for row in ("STA-S-CNN", "STA-R-C3D half"):
    own = {name: parameter.requires_grad for name, parameter in
           study.trained(row, 0).model.named_parameters()
           if ".attention." in name}
    assert own and all(own.values()), (row, own)
    assert study.lines[0]["metrics"]
"""


def test_tiny_preset_and_its_tables(tmp_path):
    check_tables("05b", tmp_path, TRAINS)
