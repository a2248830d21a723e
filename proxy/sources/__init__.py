"""Where settings come from, one file a kind: `proxy/settings.py` lays them over each other.

- `yaml_document`: YAML text to plain values, and the line of every key.
- `dotenv`: the text of a `.env` file to variables, and the line of each.
- `values`: what one value must look like beyond its type (a prefix, a target, an address); returns it normalised.
- `default_routes`: the prefixes served where no file names any.
- `tls_files`: the only one that does I/O: are the named certificates and keys there, readable and a pair?
"""
