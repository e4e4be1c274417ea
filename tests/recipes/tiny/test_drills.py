import random

import drills
from drills import drill, equation


def test_equations_hold():
    rng = random.Random(0)
    signs = set()
    for _ in range(2000):
        left, right = "".join(equation(rng)).split("=")
        signs |= set(left) & set("+-*/(")
        if "/" in left:
            a, b = map(int, left.split("/"))
            assert int(right) * b == a
        else:
            assert eval(left) == int(right)
    assert signs == set("+-*/(")


def test_left_part_gives_nothing_away():
    rng = random.Random(1)
    for _ in range(500):
        left, right = equation(rng)
        assert "=" not in left
        assert right.lstrip(")").startswith("=")


def test_lines_of_a_document_look_alike():
    rng = random.Random(2)
    endings = set()
    for _ in range(100):
        lines = ["".join(parts) for parts in drill(rng)]
        assert drills.EQUATIONS[0] <= len(lines) <= drills.EQUATIONS[1]
        assert len({(line[0] == "$", line[-2] == "$") for line in lines}) == 1
        endings.add(lines[0][-2] == "$")
    assert endings == {True, False}
