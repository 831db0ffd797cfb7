// Package fwu is an update service of the PSA Certified Firmware Update API 1.0 (Arm IHI 0093) for systems with two banks of slots.
//
// Service has the ten functions of the specification. Three things stand between a call and the medium, and can be read on their own:
//
//   - transitions (table.go) is the state machine as data: for each variant of component, state and event, the next state and the status;
//   - a call, or a boot (reconcile.go), is turned into an ordered list of effects: save the record, commit the boot selection, destroy, seal or unseal the head of a slot;
//   - one loop (effect.go) applies them. Every effect is idempotent and durable before the next begins.
//
// What is true after a power cut follows from the order of the effects:
//
//	start    destroy the heads of the second bank → record WRITING
//	finish   (image durable, read back, digest as the manifest says) → record CANDIDATE
//	cancel   record FAILED → destroy the head
//	install  verify → carry over the other members → record STAGED → unseal the heads → arm the selector
//	accept   record ACCEPTING → selector: the new bank is the default → record UPDATED, and the rollback floor
//	reject   STAGED: disarm → record that it is rejected → destroy the heads → record FAILED; TRIAL: record REJECTED → selector: the old bank is the default
//	clean    destroy the heads → erase → record READY
//
// A slot is sealed (see Sealer) from start until install, so that nothing half written can be booted or mounted, even if every boot variable is lost. The bootloader
// loads what it starts from the bank member with the lowest id; that slot is sealed first and unsealed last.
//
// The package opens no device and runs no command: Slot, Selector, Medium and System are what it asks of the world.
package fwu
