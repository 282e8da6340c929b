package binlog

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"
)

// gtidSet is the set of transactions taken care of. It is kept incrementally:
// cloning or re-parsing the set per transaction, as go-mysql offers, costs most
// of the throughput when a server has seen many sources.
type gtidSet struct {
	flavor string
	set    mysql.GTIDSet
	// MySQL: the last id added and the run of consecutive ids it ends, which is
	// merged into set when the run breaks or the set is read.
	uuid     string
	from, to int64
	newest   string // MariaDB: the last id added, not yet in set
}

func parseGTIDSet(flavor, s string) (*gtidSet, error) {
	set, err := mysql.ParseGTIDSet(flavor, s)
	if err != nil {
		return nil, fmt.Errorf("parse GTID set %q: %w", s, err)
	}
	return &gtidSet{flavor: flavor, set: set}, nil
}

// add takes one transaction's id, or several joined by commas.
func (g *gtidSet) add(gtid string) error {
	for gtid != "" {
		var one string
		one, gtid, _ = strings.Cut(gtid, ",")
		if err := g.addOne(one); err != nil {
			return fmt.Errorf("add GTID %q: %w", one, err)
		}
	}
	return nil
}

func (g *gtidSet) addOne(gtid string) error {
	if g.flavor == mysql.MariaDBFlavor {
		return g.addMariaDB(gtid)
	}
	colon := strings.LastIndexByte(gtid, ':')
	if colon < 0 {
		return errors.New("no colon in it")
	}
	n, err := strconv.ParseInt(gtid[colon+1:], 10, 64)
	if err != nil {
		return err
	}
	if gtid[:colon] == g.uuid && n == g.to+1 {
		g.to = n
		return nil
	}
	if err := g.merge(); err != nil {
		return err
	}
	g.uuid, g.from, g.to = gtid[:colon], n, n
	return nil
}

// addMariaDB keeps the newest id of a domain aside: in a domain only the newest
// counts.
func (g *gtidSet) addMariaDB(gtid string) error {
	dash := strings.IndexByte(gtid, '-')
	if dash < 0 {
		return errors.New("no dash in it")
	}
	if g.newest != "" && !strings.HasPrefix(g.newest, gtid[:dash+1]) {
		if err := g.merge(); err != nil {
			return err
		}
	}
	g.newest = gtid
	return nil
}

func (g *gtidSet) merge() error {
	if g.newest != "" {
		gtid := g.newest
		g.newest = ""
		return g.set.Update(gtid)
	}
	if g.uuid == "" {
		return nil
	}
	run := g.uuid + ":" + strconv.FormatInt(g.from, 10) + "-" + strconv.FormatInt(g.to, 10)
	g.uuid = ""
	return g.set.Update(run)
}

// current is the set itself; it must not be changed by the caller.
func (g *gtidSet) current() (mysql.GTIDSet, error) {
	if err := g.merge(); err != nil {
		return nil, fmt.Errorf("merge GTIDs: %w", err)
	}
	return g.set, nil
}

func (g *gtidSet) String() string {
	set, err := g.current()
	if err != nil {
		return err.Error()
	}
	return set.String()
}
