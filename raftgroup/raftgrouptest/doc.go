// Package raftgrouptest is for tests of raftgroup and of what runs on it: a network in memory that drops, delays, duplicates,
// reorders and partitions; a log store in memory that crashes; clusters of hosts on both; and a Machine and a Witness that
// notice when replicas disagree or an acknowledged record is lost. All of it works in virtual time (testing/synctest).
package raftgrouptest
