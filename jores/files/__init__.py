"""Files: pictures and what they carry besides their pixels, clips, tables of pairs, and where results go."""
