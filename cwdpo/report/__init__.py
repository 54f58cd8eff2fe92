"""Reports: tables from finished scores, and MLflow tracking."""
