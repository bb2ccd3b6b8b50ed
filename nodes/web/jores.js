// What the definition of a node cannot say on every host: seeds stay until someone changes them, and the first click on
// an arrow of an automatic exposure goes to a dim picture, not to a black one.
import { app } from "../../scripts/app.js";

const FIRST = 0.2; // a night that stays night
const TOO_DARK = 0.015;

function startUsable(widget) {
  const before = widget.callback;
  widget.callback = function (value, ...rest) {
    before?.call(this, value, ...rest);
    if (widget.value > 0 && widget.value < TOO_DARK) widget.value = FIRST;
  };
}

app.registerExtension({
  name: "JoReS.LowLight",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("JoReS")) return;
    for (const widget of node.widgets ?? []) {
      if (widget.name === "control_after_generate") widget.value = "fixed"; // a saved graph's own choice comes later
      if (widget.name === "exposure") startUsable(widget);
    }
  },
});
