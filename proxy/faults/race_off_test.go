//go:build !race

package faults

// detectRaces is whether the programs are built with -race: as these tests are.
const detectRaces = false
