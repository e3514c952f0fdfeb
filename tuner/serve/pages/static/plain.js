// Script of pages without a script of their own.
import { begun } from "./frame.js";

begun();
