// What the definition of a node cannot say on every host: seeds stay until someone changes them, the first click on an
// arrow of an automatic exposure goes to a dim picture, not to a black one, and the chart of a node is seen after live
// previews.
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

// The front end shows the last live preview in place of what the node shows itself, until its next run. No call of its
// own takes the preview away on all hosts; where these places change, the preview stays.
function uncover(node) {
  const place = node.graph === app.graph ? `${node.id}` : `${node.graph?.id}:${node.id}`;
  const stores = document.getElementById("vue-app")?.__vue_app__?.config?.globalProperties?.$pinia?._s;
  const store = stores?.get?.("nodeOutput");
  delete store?.nodePreviewImages?.[place]; // of Nodes 2.0
  store?.revokePreviewsByLocatorId?.(place); // frees its memory, too
  delete app.nodePreviewImages?.[place];
}

app.registerExtension({
  name: "JoReS.LowLight",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("JoReS")) return;
    for (const widget of node.widgets ?? []) {
      if (widget.name === "control_after_generate") widget.value = "fixed"; // a saved graph's own choice comes later
      if (widget.name === "exposure") startUsable(widget);
    }
    const before = node.onExecuted;
    node.onExecuted = function (output, ...rest) {
      before?.call(this, output, ...rest);
      if (output?.images?.length) uncover(this);
    };
  },
});
