# Makes fastbridge.core a package for cimport.
