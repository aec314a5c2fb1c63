"""What an ExtractJob does, part by part: connections, types, ranges, files, and what makes a run resumable."""
