"""Pictures as SVG: made of evidence, the same bytes for the same report, readable without colour and without sight."""
