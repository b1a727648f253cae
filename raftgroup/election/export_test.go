package election

// Known is of how many others something is remembered.
func (r *Race) Known() int { return len(r.rivals) }
