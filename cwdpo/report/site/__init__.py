"""The report as a folder of static HTML that asks for nothing from outside: tables, curves, gallery, provenance."""
