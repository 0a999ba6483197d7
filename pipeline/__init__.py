from pipeline import streams

streams.whole()
