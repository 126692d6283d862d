"""What the exporter costs, measured on a real `agent-oncall serve`; docs/performance.md has the figures.

python -m benchmarks.ingest       CPU time per span, against decoding alone; spans a second
python -m benchmarks.memory       bytes per task in flight and per remembered span
python -m benchmarks.exposition   /metrics at 100,000 series, and what a scrape does to the receivers
python -m benchmarks.startup      start-up after a day's journal of a million spans
"""
