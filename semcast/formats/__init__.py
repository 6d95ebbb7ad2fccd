"""Any file that people call a picture becomes 8-bit sRGB; decode.py begins it."""
