"""Ground floor: errors, configuration, atomic files, identity, and the artefact store. Imports no torch."""
