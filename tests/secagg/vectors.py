"""Readers for the published test vectors of the `cryptography_vectors` package."""

import cryptography_vectors


def nist_vectors(path, *, direction):
    """Return the records of one section of a NIST CAVP `.rsp` file, hexadecimal fields as bytes."""
    records, current, section = [], {}, None
    with cryptography_vectors.open_vector_file(path, "r") as lines:
        for line in map(str.strip, lines):
            if line.startswith("["):
                section = line.strip("[]")
            elif line.startswith("COUNT"):
                current = {}
                if section == direction:
                    records.append(current)
            elif "=" in line and not line.startswith("#"):
                name, value = (part.strip() for part in line.split("=", 1))
                current[name.lower()] = bytes.fromhex(value)
    return records
