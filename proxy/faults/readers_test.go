package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	requestsPerSecond = 330 // of all readers together
	mostUnderWay      = 256 // requests to one proxy; a client does not wait longer for more
	popularRows       = 40  // of those that are not hot: what is asked for most
)

func newClient() *http.Client {
	return &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: mostUnderWay, DisableCompression: true},
	}
}

// page is something to ask a proxy for.
type page struct {
	path  string
	id    int    // of the row that it shows; 0 for a list
	among string // the place whose rows it lists; "" for all
}

func rowPage(id int) page { return page{path: fmt.Sprintf("/properties/%d/", id), id: id} }

func placePage(i int) page {
	return page{path: "/properties/?location=" + url.QueryEscape(place(i)), among: place(i)}
}

var wholeList = page{path: "/properties/"}

// pages are all there are.
func pages() []page {
	all := []page{wholeList}
	for i := range places {
		all = append(all, placePage(i))
	}
	for id := 1; id <= rows; id++ {
		all = append(all, rowPage(id))
	}
	return all
}

// choosePage picks what most clients want: rows that change now and then.
func choosePage(rnd *rand.Rand) page {
	switch kind := rnd.IntN(100); {
	case kind == 0:
		return wholeList
	case kind < 8:
		return placePage(rnd.IntN(places))
	case kind < 22:
		return rowPage(1 + rnd.IntN(hotRows))
	case kind < 28:
		return rowPage(1 + rnd.IntN(rows))
	}
	return rowPage(1 + hotRows + rnd.IntN(popularRows))
}

// answer is what a client got.
type answer struct {
	page           page
	sent, answered time.Time
	status         int
	cacheStatus    string
	claims         []claim
	err            error // there was none, or not such as the page has
}

func (a answer) hit() bool { return a.err == nil && strings.Contains(a.cacheStatus, "; hit") }

// property is what the backend says of a row.
type property struct {
	ID       int    `json:"id"`
	Price    string `json:"price"`
	Location string `json:"location"`
}

// claim reads the price as a number of cents, which is the version.
func (p property) claim(among string) (claim, error) {
	version, err := strconv.Atoi(strings.Replace(p.Price, ".", "", 1))
	if p.ID < 1 || p.ID > rows {
		err = fmt.Errorf("there is no row %d", p.ID)
	}
	return claim{p.ID, version, p.Location, among}, err
}

// fetch asks a proxy for a page, and reads what it says.
func (p *proxy) fetch(what page) (a answer) {
	a.page, a.sent = what, time.Now()
	defer func() { a.answered = time.Now() }()
	req, err := http.NewRequest(http.MethodGet, p.url+what.path, nil)
	if err != nil {
		a.err = err
		return a
	}
	req.Header.Set("Accept", "application/json")
	res, err := p.client.Do(req)
	if err != nil {
		a.err = bare(err)
		return a
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	a.status, a.cacheStatus = res.StatusCode, strings.Join(res.Header.Values("Cache-Status"), ", ")
	switch {
	case err != nil:
		a.err = bare(err)
	case a.status == http.StatusNotFound && what.id != 0:
		a.claims = []claim{{id: what.id}}
	case a.status != http.StatusOK:
		a.err = fmt.Errorf("status %d", a.status)
	case what.id != 0:
		a.claims, a.err = what.readRow(body)
	default:
		a.claims, a.err = what.readList(body)
	}
	return a
}

// bare is an error without what differs from one request to the next.
func bare(err error) error {
	if e := (*url.Error)(nil); errors.As(err, &e) && e.Timeout() {
		return errors.New("no answer in time")
	}
	if e := (*net.OpError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

var errNonsense = errors.New("an answer that makes no sense")

func (what page) readRow(body []byte) ([]claim, error) {
	var row property
	err := json.Unmarshal(body, &row)
	if err != nil {
		return nil, fmt.Errorf("%w: %w: %s", errNonsense, err, body)
	}
	c, err := row.claim("")
	if err != nil || c.id != what.id {
		return nil, fmt.Errorf("%w: %w: %s", errNonsense, err, body)
	}
	return []claim{c}, nil
}

// readList makes a claim of each row, those that are not listed included.
func (what page) readList(body []byte) ([]claim, error) {
	var list struct {
		Properties []property `json:"properties"`
		Count      int        `json:"count"`
	}
	if err := json.Unmarshal(body, &list); err != nil || list.Count != len(list.Properties) {
		return nil, fmt.Errorf("%w: %w: a count of %d over %s", errNonsense, err, list.Count, body)
	}
	claims := make([]claim, rows)
	for i := range claims {
		claims[i] = claim{id: i + 1, among: what.among}
	}
	for _, row := range list.Properties {
		c, err := row.claim(what.among)
		if err != nil || claims[c.id-1].version != 0 || what.among != "" && c.place != what.among {
			return nil, fmt.Errorf("%w: %w: %+v in a list of %q", errNonsense, err, row, what.among)
		}
		claims[c.id-1] = c
	}
	return claims, nil
}

// read asks one proxy until stop is closed, at a pace of its own: a slow answer
// holds up no other request, and hides none.
func (r *run) read(p *proxy, rnd *rand.Rand, stop <-chan struct{}) {
	pause := float64(time.Second) * float64(len(r.proxies)) / requestsPerSecond
	next := time.NewTimer(0)
	free := make(chan struct{}, mostUnderWay)
	for {
		select {
		case <-stop:
			for range mostUnderWay { // those under way
				free <- struct{}{}
			}
			return
		case <-next.C:
		}
		next.Reset(time.Duration(rnd.ExpFloat64() * pause))
		what := choosePage(rnd)
		select {
		case free <- struct{}{}:
			go func() {
				defer func() { <-free }()
				r.take(p, p.fetch(what))
			}()
		default:
		}
	}
}

// take judges an answer and keeps what the figures need.
func (r *run) take(p *proxy, a answer) {
	l := r.model.judge(a.claims, a.sent, a.answered)
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.broken() || errors.Is(a.err, errNonsense) {
		r.suspects = append(r.suspects, suspect{p, a})
	} else {
		r.longest = max(r.longest, l.age)
	}
	a.claims = nil
	r.answers[p] = append(r.answers[p], a)
}

// suspect is an answer that looks wrong. It is judged again once all is known:
// what a crash has undone may have been asked for in vain.
type suspect struct {
	proxy *proxy
	answer
}

// sentence is why a suspect is wrong; "" if it is not.
func (r *run) sentence(s suspect) string {
	l := r.model.judge(s.claims, s.sent, s.answered)
	r.longest = max(r.longest, l.age)
	why := ""
	switch {
	case s.err != nil:
		why = s.err.Error()
	case l.broken():
		why = l.explain(r.began)
	default:
		return ""
	}
	return fmt.Sprintf("%s %s, sent at %s, answered at %s (%s): %s", s.proxy.name, s.page.path,
		since(r.began, s.sent), since(r.began, s.answered), s.cacheStatus, why)
}
