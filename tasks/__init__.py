"""Task definitions: one folder per task, holding its YAML files and a README."""
