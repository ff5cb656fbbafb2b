package changelog

// Status is where the change log stands, for people.
type Status struct {
	Cluster string      `json:"cluster"` // of those who share it; "" while Redis has not told
	Process string      `json:"process"` // this one, among the members
	Leads   bool        `json:"leads"`   // it holds the slot, and writes the log
	Epoch   string      `json:"epoch"`
	Members int         `json:"members"` // processes that were alive when they were counted last
	Writer  WriterStats `json:"writer"`
	Reader  ReaderStats `json:"reader"`
}

// Shared reports whether there is a log beyond this process.
func (l *Log) Shared() bool { return l.remote != nil }

// Status reports where the log stands.
func (l *Log) Status() Status {
	s := Status{
		Cluster: l.Cluster(), Process: l.id, Leads: l.leads.Load() != nil, Epoch: l.Epoch(),
		Members: int(l.alive.Load()), Reader: l.reads.read(), Writer: l.writer.read(),
	}
	return s
}

func (w *writer) read() WriterStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.Saved, s.QueuedChanges, s.LoggedLSN = w.saved, w.queue.changes, w.logged.String()
	return s
}
