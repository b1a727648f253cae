package election

import (
	"time"

	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	// first is how long the first one waits before it campaigns, so that the others have noticed too and forget the leader; and up to
	// firstDraw more, drawn by lot. Everybody waits a step longer than the one before, time for an election where nothing is slow.
	first     = 20 * time.Millisecond
	firstDraw = 30 * time.Millisecond
	step      = 150 * time.Millisecond
	// nudge takes the place of step among those who were just asked by somebody whose log is behind theirs: they know that he cannot win.
	nudge = 30 * time.Millisecond
	// retry is how long after one attempt the next one follows. After easyAfter attempts the others are not there: it doubles with each of
	// so many, up to maxRetry; and after maxTries nothing happens until there is news. Raft's timers go on for ever.
	retry     = 300 * time.Millisecond
	maxRetry  = 2 * time.Second
	easyAfter = 8
	maxTries  = 100
	// patience is how long a candidate that was not refused waits for votes: on slow disks they take long, and whoever asks again before they
	// are there never has them. It is longer where pre-votes took long, and doubles with each candidacy up to maxPatience.
	patience    = time.Second
	maxPatience = 8 * time.Second
	// voteHold is how long who gave somebody his vote does not campaign, and preVoteHold who said that he would. They double with each in a
	// race up to maxHold.
	voteHold    = time.Second
	preVoteHold = 500 * time.Millisecond
	maxHold     = 2 * time.Second
	// maxTurns is for how many pre-votes of the same voter others wait: it may be one that hears no answers.
	maxTurns = 2
	// emptyWait is how much longer those wait who are not preferred and whose log is empty: the others are still being made.
	emptyWait = time.Second
	// unfitLook is how often who could not store its own vote looks whether it can again.
	unfitLook = time.Second
	// doubt is how long a leader whose node is down is believed without another word from him, at first. It doubles each time he is
	// forgotten, up to maxDoubt heartbeats.
	doubt    = 100 * time.Millisecond
	maxDoubt = 3
)

// Race is a replica's part in the elections of its group: from when it knows of no leader until it hears of one. Facts go in, and the
// answer to Ring is what to do. The owner calls Ring at Due.
type Race struct {
	heartbeat time.Duration
	draw      func(time.Duration) time.Duration

	racing    bool // there is no leader
	doubting  bool // there is one whose node is down
	due       time.Time
	tries     int       // campaigns in this race
	held      time.Time // no campaign before
	heldFor   id.Replica
	holds     int
	asking    time.Time // since when it asks for pre-votes
	stood     time.Time // when the last candidacy began
	stands    int
	patience  time.Duration // with it
	lost      bool          // it is not worth waiting for: a vote was refused, or may never come
	withdrawn bool          // in favour of heldFor
	doubts    int           // how often the leader was forgotten
	rivals    []rival
}

// New returns a Race that has not begun. Heartbeat is how often a leader is heard from, and draw returns a random part of a duration.
func New(heartbeat time.Duration, draw func(time.Duration) time.Duration) Race {
	return Race{heartbeat: heartbeat, draw: draw}
}

// Cause is why a race begins.
type Cause uint8

// The causes.
const (
	// Opened is a replica that was opened. Most likely there is a leader, who will speak within a heartbeat.
	Opened Cause = iota
	// OpenedPreferred is one that was opened and is to campaign first of all.
	OpenedPreferred
	// OpenedEmpty is one that was opened with an empty log: its group is new, and the preferred replica may not be there yet.
	OpenedEmpty
	// LeaderDown is the loss of the leader's node, or, where there was no leader, of another voter's.
	LeaderDown
	// Deposed is a leader that met a higher term. Whoever has that is either about to lead, which will be heard, or could not win and does
	// not give up: then this replica's log is most likely the best.
	Deposed
	// Leaderless is the loss of the leader by Raft's own doing.
	Leaderless
)

// Begin begins a race, or hastens it.
func (r *Race) Begin(v View, why Cause) {
	if why == Leaderless && r.racing {
		return
	}
	if !r.racing {
		r.racing, r.doubting, r.due = true, false, time.Time{}
		r.tries, r.asking = 0, v.Now
	}
	behind := time.Duration(r.rank(&v)) * step
	after := behind + r.lot(firstDraw)
	switch why {
	case Opened:
		after += r.heartbeat * 5 / 4
	case OpenedEmpty:
		after += emptyWait
	case OpenedPreferred:
		after = 0
		if v.Fitness != Fit {
			after = time.Duration(len(v.Others)+2) * step // behind all others
		}
	case LeaderDown:
		after += first
		r.tries, r.asking = 0, v.Now
	case Deposed:
		after += first
		if v.Fitness == Fit {
			after -= behind
		}
	case Leaderless:
		after += r.heartbeat
	}
	r.hasten(&v, after)
}

// Led ends the race: there is a leader.
func (r *Race) Led() {
	*r = Race{heartbeat: r.heartbeat, draw: r.draw, rivals: r.rivals}
	for i := range r.rivals {
		r.rivals[i].turns = 0
	}
}

// Doubt is Led by the very one whose node was just lost. What came from him was most likely under way when he died; but Raft believes in
// him for seconds, and refuses others its vote. If he lives it takes another word from him, or no other finds a majority.
func (r *Race) Doubt(v View) {
	doubts := r.doubts
	r.Led()
	r.doubts, r.doubting = doubts, true
	r.due = v.Heard.Add(r.doubtFor())
}

// Watch is Led by somebody who was elected while his node was down: he lives, and can be reached one way only. That he dies nobody will
// say.
func (r *Race) Watch(v View) {
	r.doubts = maxDoubt * int(r.heartbeat/doubt)
	r.Doubt(v)
}

// Trust takes Doubt and Watch back.
func (r *Race) Trust() {
	if r.doubting {
		r.Led()
	}
}

func (r *Race) doubtFor() time.Duration { return min(doubt<<min(r.doubts, 8), r.heartbeat*maxDoubt) }

// PeerDown tells that another voter's node was lost, while there is no leader: nobody waits for it any more.
func (r *Race) PeerDown(v View, who id.Replica) {
	if r.heldFor == who {
		r.heldFor, r.held, r.withdrawn = id.NoReplica, time.Time{}, false
	}
	r.lost = true // the vote may have been on its way
	r.Begin(v, LeaderDown)
}

// PeerUp tells that a node that may have a voter can be reached: who has asked in vain asks again soon.
func (r *Race) PeerUp(v View) {
	if r.racing && r.tries > 0 {
		r.lost = true // or the request
		r.Begin(v, LeaderDown)
	}
}

// Request is somebody's question for a vote or a pre-vote, and what became of it.
type Request struct {
	From   id.Replica
	Log    Position
	Answer Answer
}

// Answer is a replica's answer to a Request.
type Answer uint8

// The answers.
const (
	// Denied is every answer but those that follow, and none.
	Denied Answer = iota
	// PreVoted says that it would give its vote.
	PreVoted
	// Voted gave it.
	Voted
)

// Asked tells of somebody else's campaign.
func (r *Race) Asked(v View, q Request) {
	if q.Answer == Voted { // perhaps for one that this replica does not know to be a voter yet
		r.hold(&v, q.From, voteHold)
	}
	k := r.note(&v, q.From)
	if k == nil {
		return
	}
	k.log, k.ahead = q.Log, false
	switch {
	case q.Answer == PreVoted && v.Standing == NotStanding:
		if k.turns++; k.turns <= maxTurns {
			r.hold(&v, q.From, preVoteHold)
		}
	case q.Answer == PreVoted && v.Standing == PreCandidate && r.precedes(&v, place(&v, q.From)):
		// Both would be told by the other that he may stand, and each would vote for himself. One lets the other.
		if k.turns++; k.turns <= maxTurns {
			r.withdrawn = true
			r.hold(&v, q.From, preVoteHold)
		}
	case q.Answer == Denied && r.racing && q.Log.Compare(v.Log) < 0:
		// He cannot win here, and there is no leader: the turn is that of whoever's log is better.
		each := step
		if v.Fitness == Fit {
			each = nudge
		}
		r.hasten(&v, time.Duration(r.rank(&v))*each)
	}
}

// hold has the replica let somebody else go first.
func (r *Race) hold(v *View, who id.Replica, long time.Duration) {
	until := v.Now.Add(min(long<<min(r.holds, 8), maxHold))
	r.holds++
	r.heldFor = who
	if until.After(r.held) {
		r.held = until
	}
	if r.racing {
		r.due = r.held.Add(time.Duration(r.rank(v))*step + r.lot(firstDraw))
	}
}

// Withdrawn tells whether the replica leaves the election to somebody else: a pre-vote that it is given is not to be counted.
func (r *Race) Withdrawn(now time.Time) bool { return r.withdrawn && now.Before(r.held) }

// Refusal is why a vote or a pre-vote was refused.
type Refusal uint8

// The refusals.
const (
	// Behind is the refuser's log being better.
	Behind Refusal = iota
	// OldTerm is the refuser's term being higher; Raft knows that now.
	OldTerm
	// NoVote is the refusal of a vote proper, for whatever reason.
	NoVote
)

// Refused tells that somebody refused the replica's request.
func (r *Race) Refused(v View, by id.Replica, why Refusal) {
	k := r.note(&v, by)
	if k == nil || !r.racing {
		return
	}
	switch why {
	case Behind:
		k.ahead = true
		if o := v.Others[place(&v, by)]; o.Down || o.Fitness == Unfit {
			return
		}
		// The request has told him to go.
		r.postpone(v.Now.Add(preVoteHold + time.Duration(r.rank(&v))*step + r.lot(firstDraw)))
	case OldTerm:
		r.hasten(&v, first+time.Duration(r.rank(&v))*step+r.lot(firstDraw))
	case NoVote:
		r.lost = true
		r.hasten(&v, time.Duration(1+r.rank(&v))*step+r.lot(firstDraw))
	}
}

// Stood tells that the replica became a candidate.
func (r *Race) Stood(now time.Time) {
	asked := time.Duration(0)
	if !r.asking.IsZero() { // or a leader that hands over has told it to stand
		asked = now.Sub(r.asking)
	}
	r.patience = min(max(patience<<min(r.stands, 8), 2*asked), maxPatience)
	r.stood, r.lost = now, false
	r.stands++
}

// Patient tells whether a candidate had better wait for its votes than ask again.
func (r *Race) Patient(now time.Time) bool { return !r.lost && now.Before(r.stood.Add(r.patience)) }

// Racing tells whether the race is on.
func (r *Race) Racing() bool { return r.racing }

// Due is when Ring wants to be called; zero: not.
func (r *Race) Due() time.Time { return r.due }

// Action is what is to be done.
type Action uint8

// The actions.
const (
	Wait Action = iota
	// Campaign asks the others for their votes.
	Campaign
	// Forget has Raft forget the leader. Ring is to be called again, if it is due.
	Forget
)

// Ring tells what is to be done now.
func (r *Race) Ring(v View) Action {
	if r.due.IsZero() || v.Now.Before(r.due) {
		return Wait
	}
	if r.doubting {
		return r.ringInDoubt(&v)
	}
	switch {
	case !r.racing:
		r.due = time.Time{}
		return Wait
	case v.Fitness == Unfit:
		r.due = v.Now.Add(unfitLook)
		return Wait
	case v.Now.Before(r.held):
		r.due = r.held
		return Wait
	case v.Standing == Candidate && r.Patient(v.Now):
		r.due = r.stood.Add(r.patience)
		return Wait
	}
	if v.Standing == Candidate {
		r.asking = v.Now
	}
	r.withdrawn = false
	r.tries++
	if r.tries < maxTries {
		r.due = v.Now.Add(min(retry<<min(r.tries/easyAfter, 8), maxRetry) + r.lot(firstDraw))
	} else {
		r.due = time.Time{}
	}
	return Campaign
}

func (r *Race) ringInDoubt(v *View) Action {
	if again := v.Heard.Add(r.doubtFor()); v.Now.Before(again) {
		r.due = again
		return Wait
	}
	doubts := r.doubts + 1
	r.Led()
	r.racing, r.doubts, r.asking = true, doubts, v.Now
	r.due = v.Now.Add(time.Duration(r.rank(v)) * step)
	return Forget
}

// hasten has the replica campaign after a while, counted from when it is not held any more, unless it does so earlier.
func (r *Race) hasten(v *View, after time.Duration) {
	at := v.Now
	if at.Before(r.held) {
		at = r.held
	}
	if at = at.Add(after); r.due.IsZero() || at.Before(r.due) {
		r.due = at
	}
}

// postpone has it not campaign before a time.
func (r *Race) postpone(at time.Time) {
	if !r.due.IsZero() && r.due.Before(at) {
		r.due = at
	}
}

func (r *Race) lot(most time.Duration) time.Duration {
	if r.draw == nil {
		return 0
	}
	return r.draw(most)
}
