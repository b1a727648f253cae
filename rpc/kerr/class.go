package kerr

import "slices"

// Class is some codes that a caller treats alike, as an error to compare with: errors.Is(err, class) holds for every refusal with one of
// them, whatever has been wrapped around it.
type Class struct {
	text  string
	codes []Code
}

// NewClass returns a class. Its text is what an error says that is nothing but the class.
func NewClass(text string, codes ...Code) *Class { return &Class{text, codes} }

// Error returns the text.
func (c *Class) Error() string { return c.text }

// Has tells whether a code belongs to the class.
func (c *Class) Has(code Code) bool { return slices.Contains(c.codes, code) }
