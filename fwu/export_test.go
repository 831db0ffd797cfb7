package fwu

import "encoding/json"

// EditRecord changes the record in a store, as JSON. A test makes the records with it that only a
// cut leaves.
func EditRecord(m Medium, edit func(map[string]any)) error {
	store, err := OpenStore(m)
	if err != nil {
		return err
	}
	r, err := store.load()
	if err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var all map[string]any
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	edit(all)
	if b, err = json.Marshal(all); err != nil {
		return err
	}
	n := &record{minor: r.minor}
	if err := json.Unmarshal(b, n); err != nil {
		return err
	}
	return store.save(n)
}
