"""Files: pictures with their metadata, videos, tables of pairs, and the paths of results."""
