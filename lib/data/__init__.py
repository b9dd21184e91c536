"""From a video file or a world to batches: frames, crops, flow, data sets."""
