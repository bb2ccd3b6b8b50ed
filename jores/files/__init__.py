"""Files: pictures, what they carry besides their pixels, and where results go."""
