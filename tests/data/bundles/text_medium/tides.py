"""A table of tides for a harbour, predicted from a handful of constituents.

The height of the water at a place is, to good approximation, a sum of cosines. Each belongs to a motion of the moon
or the sun whose speed astronomers know to many digits; how strongly the harbour answers to it, and how late, has to
be measured. Twenty-nine days of hourly readings separate the larger ones. This module does both directions: it fits
amplitudes and phases to readings, and it predicts high and low water from them.

    python tides.py fit readings.csv > harbour.txt
    python tides.py table harbour.txt 2024-03-10 7

Nothing here is good enough for navigation. Nodal corrections are left out, shallow-water constituents too, and the
weather, which lifts the sea by half a metre whenever it likes, knows no cosines.
"""

import csv
import datetime
import math
import sys

# Speeds in degrees an hour of mean solar time (Doodson 1921). The letters are Darwin's, the digit says how often a
# day the thing comes round.
SPEEDS = {
    "M2": 28.9841042,  # the moon, twice a lunar day: nearly everywhere the largest
    "S2": 30.0,        # the sun; with M2 it makes springs and neaps
    "N2": 28.4397295,  # the moon's distance changes over a month
    "K1": 15.0410686,  # declination of both
    "O1": 13.9430356,  # declination of the moon
    "P1": 14.9589314,  # declination of the sun; needs half a year to part from K1
}

# Constituents whose speeds are so close that a month cannot tell them apart. The second takes its amplitude and its
# phase from the first, by the ratio that both would have if the sea were in equilibrium.
INFERRED = {"P1": ("K1", 0.331)}

EPOCH = datetime.datetime(2000, 1, 1)


def hours_since_epoch(moment):
    """Hours as a float; a naive datetime is taken as universal time, because harbours that use summer time in their
    logs deserve what they get."""
    return (moment - EPOCH).total_seconds() / 3600.0


class Harbour:
    """Mean level [m] and, by name of the constituent, (amplitude [m], phase [rad])."""

    def __init__(self, mean, parts):
        self.mean = mean
        self.parts = parts

    def height(self, hours):
        total = self.mean
        for name, (amplitude, phase) in self.parts.items():
            total += amplitude * math.cos(math.radians(SPEEDS[name]) * hours - phase)
        return total

    def slope(self, hours):
        """Metres an hour. High water is where this falls through zero."""
        total = 0.0
        for name, (amplitude, phase) in self.parts.items():
            speed = math.radians(SPEEDS[name])
            total -= amplitude * speed * math.sin(speed * hours - phase)
        return total


def solve(matrix, right):
    """Gaussian elimination with the largest pivot of each column. Thirteen unknowns at most, so no library."""
    n = len(right)
    rows = [list(row) + [value] for row, value in zip(matrix, right)]
    for column in range(n):
        pivot = max(range(column, n), key=lambda r: abs(rows[r][column]))
        if abs(rows[pivot][column]) < 1e-9:
            raise ValueError("the readings do not determine every constituent; is the series too short?")
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for row in rows[column + 1:]:
            factor = row[column] / rows[column][column]
            for k in range(column, n + 1):
                row[k] -= factor * rows[column][k]
    result = [0.0] * n
    for r in reversed(range(n)):
        known = sum(rows[r][k] * result[k] for k in range(r + 1, n))
        result[r] = (rows[r][n] - known) / rows[r][r]
    return result


def fit(readings):
    """Least squares over (hours, height) pairs.

    a cos(wt) + b sin(wt) has linear unknowns; amplitude and phase follow from a and b afterwards. The normal
    equations square the condition number, which hurts nobody here: with hourly data over a month the columns are
    almost orthogonal.
    """
    fitted = [name for name in SPEEDS if name not in INFERRED]
    size = 1 + 2 * len(fitted)
    matrix = [[0.0] * size for _ in range(size)]
    right = [0.0] * size
    for hours, height in readings:
        line = [1.0]
        for name in fitted:
            angle = math.radians(SPEEDS[name]) * hours
            line += [math.cos(angle), math.sin(angle)]
        for i, left in enumerate(line):
            right[i] += left * height
            for j, other in enumerate(line):
                matrix[i][j] += left * other
    answer = solve(matrix, right)
    parts = {}
    for place, name in enumerate(fitted):
        a, b = answer[1 + 2 * place], answer[2 + 2 * place]
        parts[name] = (math.hypot(a, b), math.atan2(b, a))
    for name, (source, share) in INFERRED.items():
        amplitude, phase = parts[source]
        parts[name] = (amplitude * share, phase)
    return Harbour(answer[0], parts)


def turning_points(harbour, start, end, step=0.25):
    """(hours, height, is_high) of each high and low water in [start, end).

    A quarter of an hour is short against the six hours between two of them, so that no pair hides between two
    samples, save in harbours with a stand of the tide; Southampton is asked to look elsewhere.
    """
    t = start
    before = harbour.slope(t)
    while t < end:
        after = harbour.slope(t + step)
        if before > 0.0 >= after or before < 0.0 <= after:
            low, high = t, t + step
            for _ in range(30):  # half a microsecond: bisection is cheap and cannot overshoot
                middle = (low + high) / 2.0
                if (harbour.slope(middle) > 0.0) == (before > 0.0):
                    low = middle
                else:
                    high = middle
            yield low, harbour.height(low), before > 0.0
        before = after
        t += step


def read_readings(path):
    """Lines `2024-02-01T13:00, 3.42`. Gaps are fine, blunders are not: a reading more than ten metres from its
    predecessor stops the program instead of bending the fit."""
    previous = None
    with open(path, newline="") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if not row or row[0].startswith("#"):
                continue
            try:
                moment = datetime.datetime.fromisoformat(row[0].strip())
                height = float(row[1])
            except (ValueError, IndexError) as reason:
                sys.exit(f"{path}:{number}: {reason}")
            if previous is not None and abs(height - previous) > 10.0:
                sys.exit(f"{path}:{number}: {height} m after {previous} m")
            previous = height
            yield hours_since_epoch(moment), height


def write_harbour(harbour, file):
    print(f"mean {harbour.mean:.4f}", file=file)
    for name in sorted(harbour.parts, key=lambda key: -harbour.parts[key][0]):
        amplitude, phase = harbour.parts[name]
        print(f"{name} {amplitude:.4f} {math.degrees(phase) % 360.0:.2f}", file=file)


def read_harbour(path):
    mean, parts = 0.0, {}
    with open(path) as file:
        for line in file:
            words = line.split()
            if words[0] == "mean":
                mean = float(words[1])
            elif words[0] in SPEEDS:
                parts[words[0]] = (float(words[1]), math.radians(float(words[2])))
            else:
                sys.exit(f"{path}: no constituent is called {words[0]!r}")
    return Harbour(mean, parts)


def print_table(harbour, first_day, n_days):
    for day in range(n_days):
        date = first_day + datetime.timedelta(days=day)
        start = hours_since_epoch(datetime.datetime.combine(date, datetime.time()))
        entries = []
        for hours, height, is_high in turning_points(harbour, start, start + 24.0):
            minutes = round((hours - start) * 60.0)
            mark = "H" if is_high else "L"
            # Rounding can reach 24:00, which belongs to this day as well as to the next; it is left here.
            entries.append(f"{mark} {minutes // 60:02d}:{minutes % 60:02d} {height:5.2f}")
        print(f"{date:%a %d %b}   " + "   ".join(entries))


def form_number(harbour):
    """(K1 + O1) / (M2 + S2): below a quarter two equal tides a day, above three a single one."""
    size = {name: part[0] for name, part in harbour.parts.items()}
    return (size["K1"] + size["O1"]) / (size["M2"] + size["S2"])


def main(arguments):
    if len(arguments) == 2 and arguments[0] == "fit":
        harbour = fit(list(read_readings(arguments[1])))
        write_harbour(harbour, sys.stdout)
        kinds = [(0.25, "semidiurnal"), (1.5, "mixed, mainly semidiurnal"), (3.0, "mixed, mainly diurnal")]
        number = form_number(harbour)
        kind = next((name for bound, name in kinds if number < bound), "diurnal")
        print(f"form number {number:.2f}: {kind}", file=sys.stderr)
    elif len(arguments) == 4 and arguments[0] == "table":
        day = datetime.date.fromisoformat(arguments[2])
        print_table(read_harbour(arguments[1]), day, int(arguments[3]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
