"""The process and its machine: console, signals, several processes, devices, caches."""
