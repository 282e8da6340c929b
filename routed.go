package rowtide

// Routed is a change for one key of one module.
type Routed struct {
	// Key is where the change belongs: the module's key, or, for a look-up whose
	// keys only a database knows, its question.
	Key Key
	// Change names the module. It holds the images of this key only: a row that
	// moves from one key to another is two Routed.
	Change Change
}
