package faults

import (
	"testing"
	"time"
)

// at is a moment of the histories below.
func at(seconds float64) time.Time {
	return time.Unix(1000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

// past makes the history of row 1 from states in order.
func past(states ...state) *model {
	m := &model{}
	m.rows[1].states = states
	return m
}

func acked(version int, place string, seconds float64) state {
	return state{version: version, place: place, began: at(seconds - 0.1), acked: at(seconds)}
}

func TestModel_AnswersAreAsOldAsTheFirstThingTheyLack(t *testing.T) {
	m := past(acked(1, "a", 0), acked(2, "a", 10), acked(3, "b", 12), acked(0, "", 20))
	for _, c := range []struct {
		claim claim
		sent  float64
		age   float64
		wrong bool
	}{
		{claim{id: 1, version: 1, place: "a"}, 9, 0, false},
		{claim{id: 1, version: 1, place: "a"}, 11, 1, false},
		{claim{id: 1, version: 1, place: "a"}, 13, 3, false}, // not 1, since version 3
		{claim{id: 1, version: 2, place: "a"}, 13, 1, false},
		{claim{id: 1, version: 3, place: "b"}, 13, 0, false},
		{claim{id: 1, version: 3, place: "a"}, 13, 0, true}, // its place is that of version 2
		{claim{id: 1, version: 4, place: "a"}, 13, 0, true},
		{claim{id: 1, version: 3, place: "b"}, 9, 0, true}, // not begun when it was answered
		{claim{id: 1, version: 0}, 13, 0, true},            // a row that there is
		{claim{id: 1, version: 0}, 21, 0, false},
		{claim{id: 1, version: 3, place: "b"}, 24, 4, false},
		{claim{id: 1, version: 0, among: "b"}, 11, 0, false},
		{claim{id: 1, version: 0, among: "b"}, 15, 3, false},
		{claim{id: 1, version: 0, among: "a"}, 15, 0, false},
		{claim{id: 1, version: 0, among: "a"}, 11, 0, true},
	} {
		l := m.judge([]claim{c.claim}, at(c.sent), at(c.sent+0.01))
		if l.wrong != c.wrong || l.age != time.Duration(c.age*float64(time.Second)) {
			t.Errorf("%s at %v: %v, wrong %t; want %vs, %t", c.claim, c.sent, l.age, l.wrong, c.age, c.wrong)
		}
	}
}

func TestModel_ACommitWithoutAcknowledgementMayBeThereOrNot(t *testing.T) {
	maybe := state{version: 2, place: "a", began: at(10)}
	m := past(acked(1, "a", 0), maybe)
	for version, wrong := range map[int]bool{1: false, 2: false, 3: true} {
		if l := m.judge([]claim{{id: 1, version: version, place: "a"}}, at(100), at(100)); l.wrong != wrong || l.age != 0 {
			t.Errorf("version %d: %v, wrong %t", version, l.age, l.wrong)
		}
	}
	m = past(acked(1, "a", 0), maybe, acked(3, "a", 20))
	for version, age := range map[int]time.Duration{1: 5 * time.Second, 2: 5 * time.Second, 3: 0} {
		if l := m.judge([]claim{{id: 1, version: version, place: "a"}}, at(25), at(25)); l.wrong || l.age != age {
			t.Errorf("version %d, once the next is acknowledged: %v, wrong %t", version, l.age, l.wrong)
		}
	}
}

func TestModel_WhatACrashUndidIsNotAskedForAndSoonNotAllowed(t *testing.T) {
	m := past(acked(1, "a", 0), acked(2, "a", 10), acked(3, "a", 11))
	found := make([]claim, 0, rows)
	found = append(found, claim{id: 1, version: 1, place: "a"})
	if n := m.crashed(found); n != 2 {
		t.Fatalf("%d undone", n)
	}
	for i := range m.rows[1].states {
		if s := &m.rows[1].states[i]; !s.vanished.IsZero() {
			s.vanished = at(12)
		}
	}
	ask := func(version int, sent float64) lag {
		return m.judge([]claim{{id: 1, version: version, place: "a"}}, at(sent), at(sent))
	}
	if l := ask(1, 20); l.broken() || l.age != 0 {
		t.Errorf("what is left: %+v", l)
	}
	if l := ask(3, 13); l.broken() {
		t.Errorf("what was undone, within the bound: %+v", l)
	}
	if l := ask(3, 14.5); !l.wrong {
		t.Errorf("what was undone, past the bound: %+v", l)
	}
	m.rows[1].states = append(m.rows[1].states, acked(4, "a", 15))
	if l := ask(1, 18); !l.broken() || l.age != 3*time.Second {
		t.Errorf("what is left, once there is more: %+v", l)
	}
}

func TestModel_SaysWhenTheDatabaseItselfIsWrong(t *testing.T) {
	m := past(acked(1, "a", 0), acked(2, "a", 10))
	for version, right := range map[int]bool{1: false, 2: true, 3: false} {
		if err := m.check([]claim{{id: 1, version: version, place: "a"}}, at(0)); (err == nil) != right {
			t.Errorf("version %d: %v", version, err)
		}
	}
}
